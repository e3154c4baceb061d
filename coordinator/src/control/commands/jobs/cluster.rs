//! Jobs in a cluster: Kubernetes makes and counts the Pods, which claim shards as they join.

use berth_model::id::{ClusterName, InstanceId, JobName};
use berth_model::instance::{InstanceStatus, Phase, PodRecord, Reason, Stage};
use berth_model::job::JobState;
use berth_model::place::Place;
use berth_model::problem::Problem;

use super::{find, set_cluster, with_job};
use crate::control::act;
use crate::control::agent::AgentName;
use crate::control::commands::{statuses, tasks};
use crate::control::world::World;

/// What was seen of a job's Job in its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ClusterJob {
    /// It is there.
    Made {
        /// Its UID.
        uid: String,
    },
    /// Nothing of it is left there.
    Gone,
    /// One of its Pods has ended, or is gone.
    PodEnded {
        /// Which.
        pod_uid: String,
        /// Why.
        reason: Reason,
        /// The end of its output.
        last_lines: Vec<String>,
    },
    /// Kubernetes says that it is over.
    Concluded {
        /// Why it failed; none if it is complete.
        failed: Option<Reason>,
    },
}

/// The planner has chosen a cluster: the Job is to be made there.
pub(crate) fn place(world: &mut World, name: &JobName, cluster: ClusterName) {
    set_cluster(world, name, Some(cluster));
}

/// Takes what was seen of a job's Job in its cluster.
pub(crate) fn change(world: &mut World, name: &JobName, seen: ClusterJob) {
    match seen {
        ClusterJob::Made { uid } => with_job(world, name, |job| job.uid = Some(uid)),
        ClusterJob::Gone => with_job(world, name, |job| {
            job.cluster = None;
            job.uid = None;
        }),
        ClusterJob::PodEnded {
            pod_uid,
            reason,
            last_lines,
        } => pod_ended(world, name, &pod_uid, reason, last_lines),
        ClusterJob::Concluded { failed } => concluded(world, name, failed),
    }
}

/// Gives a Pod a free shard to work on: the same one however often it asks, and one only. Errors: 404; 409
/// if the Pod is of another Job, its task is over, or no shard is free.
pub(crate) fn claim(
    world: &mut World,
    name: &JobName,
    pod: PodRecord,
) -> Result<InstanceId, Problem> {
    let job = find(world, name)?;
    let refuse = |why: &str| {
        let pod = if pod.name.is_empty() {
            &pod.uid
        } else {
            &pod.name
        };
        Problem::conflict(format!("Pod {pod} gets no shard of job {name}: {why}"))
    };
    let Some(cluster) = job.cluster.clone() else {
        return Err(refuse("it runs in no cluster"));
    };
    if job.state.is_over() || job.deleting {
        return Err(refuse("it is over"));
    }
    if job.uid.as_ref().is_some_and(|uid| *uid != pod.job_uid) {
        return Err(refuse("the Pod belongs to another Job"));
    }
    if let Some(id) = job.claims.get(&pod.uid).cloned() {
        return again(world, id, pod).ok_or_else(|| {
            Problem::conflict(format!(
                "Pod of job {name}: its task is over, and it gets no second one"
            ))
        });
    }
    let Some(index) = free(world, name) else {
        return Err(refuse("every shard has its output or a task"));
    };
    let mut job = job.clone();
    let slot = job.slot(index);
    let attempt = world.records.attempts.get(&slot).copied().unwrap_or(0) + 1;
    let id = InstanceId { slot, attempt };
    job.claims.insert(pod.uid.clone(), id.clone());
    world.records.jobs.put(name.clone(), job);
    let (reserved, gpus) = Default::default();
    act::create(world, id.clone(), Place::Cluster(cluster), reserved, gpus);
    let _ = again(world, id.clone(), pod);
    Ok(id)
}

/// Notes the Pod (its key may be new) in its task's record; none if the task is over.
fn again(world: &mut World, id: InstanceId, pod: PodRecord) -> Option<InstanceId> {
    let mut record = world.records.instances.get(&id)?.clone();
    if record.stage != Stage::Running || record.status.phase == Phase::Stopped {
        return None;
    }
    record.pod = Some(pod);
    world.records.instances.put(id.clone(), record);
    Some(id)
}

/// The first shard without an output and without a task that may bring one.
fn free(world: &World, name: &JobName) -> Option<u32> {
    let job = world.records.jobs.get(name)?;
    let works = |index: u32| {
        let mut records = world.records.instances_of(&name.into());
        records.any(|r| {
            job.owns(&r.id)
                && r.id.slot.ordinal == index
                && r.stage == Stage::Running
                && r.status.phase != Phase::Stopped
        })
    };
    (0..job.completions()).find(|index| !job.outputs.contains_key(index) && !works(*index))
}

/// A Pod has ended or is gone. If its agent has not said so itself, its shard is free again, and this is
/// why the attempt failed.
fn pod_ended(
    world: &mut World,
    name: &JobName,
    pod_uid: &str,
    reason: Reason,
    last_lines: Vec<String>,
) {
    let job = world.records.jobs.get(name);
    let Some(id) = job.and_then(|job| job.claims.get(pod_uid)).cloned() else {
        return;
    };
    let Some(record) = world.records.instances.get(&id) else {
        return;
    };
    if record.status.phase == Phase::Stopped {
        return;
    }
    let status = InstanceStatus {
        phase: Phase::Stopped,
        reason: Some(reason),
        last_lines,
        since: world.wall,
        output: None,
        ..record.status.clone()
    };
    statuses::take(world, &AgentName::Pod(id), status);
}

/// Kubernetes says that its Job is over: why it failed, or none if it is complete. A complete Job with
/// shards that lack an output has lost them.
fn concluded(world: &mut World, name: &JobName, failed: Option<Reason>) {
    let Some(mut job) = world.records.jobs.get(name).cloned() else {
        return;
    };
    let reason = failed.unwrap_or_else(|| Reason::Node {
        error: format!(
            "Kubernetes counts the Job as complete, but {} of {} shards have no output",
            job.shards.len() - job.outputs.len(),
            job.shards.len()
        ),
    });
    job.end(JobState::Failed { reason }, world.wall);
    tasks::keep(world, job);
}
