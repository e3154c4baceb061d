//! What clusters report becomes the instances' statuses. What an agent in a Pod says of its own module comes
//! first; a cluster adds what only it knows: why a Pod does not begin, and how one ended that could not say so.

use std::time::Duration;

use berth_model::id::{ClusterName, InstanceId, JobName};
use berth_model::instance::{InstanceRecord, InstanceStatus, Phase, PodRecord, Reason, Stage};

use super::{PodReport, Reach, WorkName, WorkNews, WorkReport};
use crate::control::agent::AgentName;
use crate::control::commands::jobs::{self, ClusterJob};
use crate::control::commands::statuses;
use crate::control::events::Happened;
use crate::control::world::World;

/// An instance that was healthy for so long before it ended begins its failures anew.
const STEADY: Duration = Duration::from_secs(600);

/// Takes whether a cluster can be used. Answers whether that is news.
pub(crate) fn reach(world: &mut World, name: &ClusterName, reach: Reach) -> bool {
    let now = world.wall;
    let Some(cluster) = world.clusters.get_mut(name) else {
        return false;
    };
    if cluster.reach == reach {
        return false;
    }
    let was = cluster.unreachable();
    cluster.reach = reach;
    cluster.since = now;
    let is = cluster.unreachable();
    match (was, is) {
        (Some(_), None) => world.happened(&Happened::ClusterReached(name)),
        (_, Some(why)) => world.happened(&Happened::ClusterAway(name, &why)),
        (None, None) => {}
    }
    true
}

/// Takes reports of a cluster.
pub(crate) fn take(world: &mut World, cluster: &ClusterName, reports: Vec<WorkReport>) {
    for report in reports {
        match report.work.clone() {
            WorkName::Instance(id) => instance(world, cluster, &id, report),
            WorkName::Job { name, born } => job(world, &name, born, report),
        }
    }
}

fn instance(world: &mut World, cluster: &ClusterName, id: &InstanceId, report: WorkReport) {
    let here = |r: &&InstanceRecord| r.place.cluster() == Some(cluster);
    let Some(record) = world.records.instances.get(id).filter(here).cloned() else {
        return;
    };
    let record = match known_job(world, record, &report) {
        Some(record) => record,
        // Not the Job that Berth made: as good as gone.
        None => return gone(world, id, &report.job),
    };
    let before = record.status.clone();
    match report.news {
        WorkNews::Waiting(reason) => waiting(world, record, reason),
        WorkNews::Running if before.phase == Phase::Assigned || before.reason.is_some() => {
            waiting(world, record, None);
        }
        WorkNews::Refused(reason) => waiting(world, record, Some(reason)),
        WorkNews::Ended { reason, last_lines } => {
            let (reason, last_lines) = match second_pod(&record, &report.pods) {
                Some(reason) => (reason, Vec::new()),
                None => (reason, last_lines),
            };
            ended(world, record, reason, last_lines);
        }
        WorkNews::Gone => gone(world, id, &report.job),
        WorkNews::Running | WorkNews::Deleting => {}
    }
}

/// What is seen of a whole job's Job: ended Pods first, since they may decide what its end means.
fn job(world: &mut World, name: &JobName, born: u64, report: WorkReport) {
    let record = world.records.jobs.get(name);
    let Some(record) = record.filter(|job| job.created.0 == born).cloned() else {
        return;
    };
    let known = record.uid.clone();
    let other = known.is_some_and(|uid| !report.uid.is_empty() && uid != report.uid);
    let news = if other { WorkNews::Gone } else { report.news };
    if record.uid.is_none() && !report.uid.is_empty() {
        let uid = report.uid.clone();
        jobs::change(world, name, ClusterJob::Made { uid });
    }
    for pod in report.pods {
        let uid = if pod.uid.is_empty() {
            pod_uid(world, name, &pod.name)
        } else {
            Some(pod.uid)
        };
        if let (Some(pod_uid), Some((reason, last_lines))) = (uid, pod.ended) {
            let job = world.records.jobs.get(name);
            if let Some(task) = job.and_then(|job| job.claims.get(&pod_uid)).cloned() {
                world.live.ends.gone.insert(task);
            }
            let ended = ClusterJob::PodEnded {
                pod_uid,
                reason,
                last_lines,
            };
            jobs::change(world, name, ended);
        }
    }
    let over = |world: &World| {
        let job = world.records.jobs.get(name);
        job.is_none_or(|job| job.state.is_over() || job.deleting)
    };
    let waits = match news {
        WorkNews::Waiting(reason) => reason,
        WorkNews::Refused(reason) => Some(reason),
        WorkNews::Ended { reason, .. } => {
            let failed = Some(reason).filter(|reason| *reason != Reason::Completed);
            if !over(world) {
                jobs::change(world, name, ClusterJob::Concluded { failed });
            }
            None
        }
        WorkNews::Gone => {
            gone_job(world, name, &report.job, !over(world));
            None
        }
        WorkNews::Running | WorkNews::Deleting => None,
    };
    let ends = &mut world.live.ends;
    match waits {
        Some(reason) => drop(ends.waits.insert(name.clone(), reason)),
        None => drop(ends.waits.remove(name)),
    }
}

/// A Pod that vanished is known by its name only.
fn pod_uid(world: &World, job: &JobName, pod: &str) -> Option<String> {
    let job = world.records.jobs.get(job)?;
    let mut records = world.records.instances_of(&(&job.name).into());
    let record = records.find(|r| job.owns(&r.id) && r.pod.as_ref().is_some_and(|p| p.name == pod));
    record.and_then(|r| r.pod.as_ref()).map(|p| p.uid.clone())
}

/// Nothing of a job's Job is left: nor of its tasks. If that was not wanted, the job has failed.
fn gone_job(world: &mut World, name: &JobName, what: &str, unwanted: bool) {
    let Some(job) = world.records.jobs.get(name).cloned() else {
        return;
    };
    let reason = Reason::Deleted {
        what: format!("Job {what}"),
    };
    world.live.ends.gone.extend(job.claims.values().cloned());
    let tasks: Vec<String> = world
        .records
        .instances_of(&name.into())
        .filter(|r| job.owns(&r.id) && r.status.phase != Phase::Stopped)
        .filter_map(|r| r.pod.as_ref().map(|pod| pod.uid.clone()))
        .collect();
    if unwanted {
        let failed = Some(reason.clone());
        jobs::change(world, name, ClusterJob::Concluded { failed });
    }
    for pod_uid in tasks {
        let ended = ClusterJob::PodEnded {
            pod_uid,
            reason: reason.clone(),
            last_lines: Vec::new(),
        };
        jobs::change(world, name, ended);
    }
    jobs::change(world, name, ClusterJob::Gone);
}

/// Kubernetes makes a second Pod of an instance's Job only when the first was deleted. That one is refused, and
/// how it ended says nothing of the instance.
fn second_pod(record: &InstanceRecord, pods: &[PodReport]) -> Option<Reason> {
    let first = record.pod.as_ref().filter(|pod| !pod.uid.is_empty())?;
    let other = pods
        .iter()
        .any(|pod| !pod.uid.is_empty() && pod.uid != first.uid);
    let said = pods
        .iter()
        .any(|pod| pod.uid == first.uid && pod.ended.is_some());
    (other && !said).then(|| Reason::Deleted {
        what: format!("Pod {}", first.name),
    })
}

/// The record with its Job's UID, or none if the Job is another one.
fn known_job(
    world: &mut World,
    mut record: InstanceRecord,
    report: &WorkReport,
) -> Option<InstanceRecord> {
    if report.uid.is_empty() {
        return Some(record);
    }
    match &record.pod {
        Some(pod) if pod.job_uid != report.uid => None,
        Some(_) => Some(record),
        None => {
            record.pod = Some(PodRecord {
                job_uid: report.uid.clone(),
                ..PodRecord::default()
            });
            let id = record.id.clone();
            world.records.instances.put(id, record.clone());
            Some(record)
        }
    }
}

/// Before its agent has a word: the Pod's own troubles.
fn waiting(world: &mut World, record: InstanceRecord, reason: Option<Reason>) {
    let agent = world.live.agents.get(&AgentName::Pod(record.id.clone()));
    let joined = agent.is_some_and(|agent| agent.session.is_some());
    let early = matches!(record.status.phase, Phase::Assigned | Phase::Preparing);
    let same = record.status.phase == Phase::Preparing && record.status.reason == reason;
    if joined || !early || same {
        return;
    }
    let since = match record.status.phase {
        Phase::Preparing => record.status.since,
        _ => world.wall,
    };
    let status = InstanceStatus {
        phase: Phase::Preparing,
        reason,
        since,
        ..record.status
    };
    take_status(world, status);
}

fn ended(world: &mut World, record: InstanceRecord, reason: Reason, last_lines: Vec<String>) {
    let said = record.status.phase == Phase::Stopped;
    let telling = matches!(
        reason,
        Reason::OutOfMemory { .. } | Reason::Evicted { .. } | Reason::DeadlineExceeded { .. }
    );
    // An agent that is told to end does not know who wanted it.
    let outside = matches!(reason, Reason::Deleted { .. })
        && record.stage == Stage::Running
        && matches!(
            record.status.reason,
            Some(Reason::StopRequested | Reason::KilledAfterGrace)
        );
    let better =
        outside || telling && !matches!(record.status.reason, Some(Reason::OutOfMemory { .. }));
    if said && !better {
        return;
    }
    let lines = if record.status.last_lines.is_empty() || !said && !last_lines.is_empty() {
        last_lines
    } else {
        record.status.last_lines
    };
    let status = InstanceStatus {
        phase: Phase::Stopped,
        address: None,
        pid: None,
        reason: Some(reason),
        last_lines: lines,
        since: if said {
            record.status.since
        } else {
            world.wall
        },
        ..record.status
    };
    take_status(world, status);
}

/// Nothing of it is there. If that was not wanted, somebody else did it.
fn gone(world: &mut World, id: &InstanceId, job: &str) {
    world.live.ends.gone.insert(id.clone());
    let Some(record) = world.records.instances.get(id).cloned() else {
        return;
    };
    if record.status.phase == Phase::Stopped {
        return;
    }
    let asked = matches!(record.stage, Stage::Stopping | Stage::Lost);
    let reason = if asked {
        Reason::StopRequested
    } else {
        Reason::Deleted {
            what: format!("Job {job}"),
        }
    };
    let status = InstanceStatus {
        phase: Phase::Stopped,
        address: None,
        pid: None,
        reason: Some(reason),
        since: world.wall,
        ..record.status
    };
    take_status(world, status);
}

fn take_status(world: &mut World, status: InstanceStatus) {
    let agent = AgentName::Pod(status.id.clone());
    statuses::take(world, &agent, status);
}

/// Notes that an instance in a cluster has ended by itself: how often in a row decides the pause before the
/// next attempt.
pub(crate) fn note_end(world: &mut World, record: &InstanceRecord, before: &InstanceStatus) {
    let task = world
        .records
        .jobs
        .contains_key(record.id.slot.service.as_str());
    if record.place.cluster().is_none() || record.stage != Stage::Running || task {
        return;
    }
    let healthy = before.phase == Phase::Healthy;
    let steady = healthy && before.since.age(world.wall) >= STEADY;
    let ends = &mut world.live.ends;
    ends.ended.insert(record.id.clone(), world.now);
    let streak = ends.streaks.entry(record.id.slot.clone()).or_default();
    *streak = if steady { 1 } else { *streak + 1 };
}
