//! Jobs: the next attempts of tasks, and the end of what is not wanted any more.
//!
//! Of each index at most one attempt may commit at a time: the one whose record runs. Outputs and failures
//! are counted where agents report them (`berth_model::job`), so that what an agent said and what became
//! of the job are one change; here the tasks follow from it. A task on a lost node is fenced and replaced
//! as an instance is; that is no failure of the job's.

use std::collections::{BTreeMap, BTreeSet};

use berth_model::id::{InstanceId, JobName, ServiceName, Slot};
use berth_model::instance::{Phase, Stage};
use berth_model::place::Place;

use crate::place;
use crate::reject::{Rejection, Rejections};
use crate::view::View;
use crate::{Action, JobWanted, WaitReason, fill};

/// Whether an identity is a task of a job that is there.
pub(crate) fn is_task(view: &View<'_>, id: &InstanceId) -> bool {
    let job = view.desired.jobs.get(id.slot.service.as_str());
    job.is_some_and(|job| job.revision == id.slot.revision)
}

/// Plans one job.
pub(crate) fn plan(view: &mut View<'_>, name: &JobName, job: &JobWanted) {
    let service = ServiceName::from(name);
    let expired = !job.over && !job.deleting && job.due.is_some_and(|due| expired(view, due));
    if expired {
        view.act(Action::ExpireJob { job: name.clone() });
    }
    let why = if job.deleting {
        Some("the job is being deleted")
    } else if expired {
        Some("the job's deadline is over")
    } else if job.over {
        Some("the job is over")
    } else {
        None
    };
    end_unwanted(view, &service, job, why);
    match why {
        None if !job.in_cluster => create_missing(view, &service, job),
        None if job.cluster.is_none() => place(view, name, &service, job),
        Some(_)
            if job.deleting
                && !job.emptied
                && job.cluster.is_none()
                && is_empty(view, &service, job) =>
        {
            view.act(Action::DropJob { job: name.clone() });
        }
        _ => {}
    }
}

fn expired(view: &mut View<'_>, due: berth_model::time::Monotonic) -> bool {
    if view.now < due {
        view.wake(due);
    }
    view.now >= due
}

/// Forgets what has ended by itself, and tells what is not wanted to stop: everything once the job is
/// over, an index whose output is there, an attempt that a later one has replaced.
fn end_unwanted(view: &mut View<'_>, service: &ServiceName, job: &JobWanted, over: Option<&str>) {
    let mut newest: BTreeMap<u32, u32> = BTreeMap::new();
    let mut running: Vec<(InstanceId, Phase)> = Vec::new();
    for (id, placed) in view.of(service) {
        if id.slot.revision == job.revision && placed.is_live() {
            let attempt = newest.entry(id.slot.ordinal).or_default();
            *attempt = id.attempt.max(*attempt);
            running.push((id.clone(), placed.phase));
        }
    }
    for (id, phase) in running {
        let index = id.slot.ordinal;
        let why = match over {
            _ if phase == Phase::Stopped => {
                view.forget(&id);
                continue;
            }
            Some(why) => why,
            None if job.done.contains(&index) => "its index has its output",
            None if newest.get(&index) > Some(&id.attempt) => "a later attempt has taken over",
            None => continue,
        };
        view.set_stage(&id, Stage::Stopping);
        let why = why.to_owned();
        view.act(Action::EndTask { id, why });
    }
}

fn create_missing(view: &mut View<'_>, service: &ServiceName, job: &JobWanted) {
    let (taken, busy) = at_work(view, service, job);
    let open: Vec<u32> = (0..job.completions)
        .filter(|index| !job.done.contains(index) && !taken.contains(index))
        .collect();
    let free = job.parallelism.saturating_sub(busy) as usize;
    let next = open.len().min(free);
    for (created, index) in open.into_iter().take(next).enumerate() {
        match place::choose(view, service, job.revision) {
            Ok(place) => {
                let slot = Slot {
                    service: service.clone(),
                    revision: job.revision,
                    ordinal: index,
                };
                let attempt = view.observed.attempts.get(&slot).copied().unwrap_or(0) + 1;
                view.create(InstanceId { slot, attempt }, place);
            }
            Err(rejections) => {
                let missing = u32::try_from(next - created).unwrap_or(u32::MAX);
                wait_for_node(view, service, missing, &rejections);
                return;
            }
        }
    }
}

/// Indices that a task works on, and how many tasks use a place of the job's parallelism: what still
/// stops does, what is fenced on a lost node does not.
fn at_work(view: &View<'_>, service: &ServiceName, job: &JobWanted) -> (BTreeSet<u32>, u32) {
    let (mut taken, mut busy) = (BTreeSet::new(), 0);
    for (id, placed) in view.of(service) {
        if id.slot.revision != job.revision {
            continue;
        }
        if placed.is_live() {
            taken.insert(id.slot.ordinal);
        }
        busy += u32::from(placed.stage != Stage::Lost && placed.phase != Phase::Stopped);
    }
    (taken, busy)
}

/// A job for Kubernetes goes to a cluster as a whole, which makes and counts its tasks.
fn place(view: &mut View<'_>, name: &JobName, service: &ServiceName, job: &JobWanted) {
    match place::choose(view, service, job.revision) {
        Ok(Place::Cluster(cluster)) => {
            let job = name.clone();
            view.act(Action::PlaceJob { job, cluster });
        }
        // What it needs says that it is for a cluster.
        Ok(Place::Node(_)) => {}
        Err(rejections) => {
            let reason = WaitReason::NoCluster {
                missing: job.completions.min(job.parallelism),
                clusters: u32::try_from(view.observed.clusters.len()).unwrap_or(u32::MAX),
                rejected: fill::listed(&rejections),
            };
            view.wait(service, reason);
        }
    }
}

fn wait_for_node(
    view: &mut View<'_>,
    service: &ServiceName,
    missing: u32,
    rejections: &Rejections,
) {
    // A place that is taken gets free by itself, as tasks end.
    let taken = rejections.keys().any(|why| *why == Rejection::Taken);
    let reason = WaitReason::TasksWait {
        missing,
        nodes: u32::try_from(view.observed.nodes.len()).unwrap_or(u32::MAX),
        rejected: fill::listed(rejections),
        advice: if taken {
            String::new()
        } else {
            fill::advice(rejections)
        },
    };
    view.wait(service, reason);
}

/// Whether nothing is left of a job but what is fenced on lost nodes.
fn is_empty(view: &View<'_>, service: &ServiceName, job: &JobWanted) -> bool {
    let mut all = view.of(service);
    !all.any(|(id, placed)| id.slot.revision == job.revision && placed.stage != Stage::Lost)
}
