//! Creating and deleting jobs.

mod cluster;
mod create;

use std::collections::BTreeSet;

use berth_model::digest::BlobDigest;
use berth_model::id::{ClusterName, InstanceId, JobName};
use berth_model::instance::{Phase, Reason, Stage};
use berth_model::job::{JobRecord, JobState};
use berth_model::problem::Problem;
use berth_plan::Session;

use super::tasks;
use crate::control::agent::AgentName;
use crate::control::events::{Happened, OfJob};
use crate::control::world::World;
use crate::control::{Leavings, act};

pub(crate) use self::cluster::{ClusterJob, change, claim, place};
pub(crate) use self::create::{DEFAULT_RETRIES, Prepared, carry_out, create, prepare, room};

/// A job's record. Errors: 404 with what there is.
pub(crate) fn find<'a>(world: &'a World, name: &JobName) -> Result<&'a JobRecord, Problem> {
    world.records.jobs.get(name).ok_or_else(|| {
        let known: Vec<&str> = world.records.jobs.keys().map(JobName::as_str).collect();
        let hint = berth_model::manifest::suggest::did_you_mean(name.as_str(), &known);
        Problem::not_found(format!(
            "there is no job {name}; `berth job list` shows all{hint}"
        ))
    })
}

/// Begins to delete; again is no error while it is on its way out.
pub(crate) fn delete(world: &mut World, name: &JobName) -> Result<(), Problem> {
    let mut job = find(world, name)?.clone();
    if !job.deleting {
        job.deleting = true;
        world.happened(&Happened::Job(OfJob::Deleted(name)));
        world.records.jobs.put(name.clone(), job);
    }
    Ok(())
}

/// The job's deadline is over.
pub(crate) fn expire(world: &mut World, name: &JobName) {
    let Some(mut job) = world.records.jobs.get(name).cloned() else {
        return;
    };
    let after_ms = job.deadline.map_or(0, |deadline| deadline.as_millis());
    let reason = Reason::DeadlineExceeded { after_ms };
    job.end(JobState::Failed { reason }, world.wall);
    tasks::keep(world, job);
}

/// Nothing of a deleted job runs any more: what it left may be removed.
pub(crate) fn emptied(world: &mut World, name: &JobName) {
    if let Some(mut job) = world.records.jobs.get(name).cloned() {
        job.emptied = true;
        world.records.jobs.put(name.clone(), job);
    }
}

/// What deleted jobs left and nothing else needs.
pub(crate) fn leavings(world: &World) -> Vec<Leavings> {
    let jobs = world.records.jobs.values().filter(|job| job.emptied);
    // Lines that are on their way would be kept anew.
    let told = |job: &&JobRecord| is_told(world, &job.name).unwrap_or(true);
    jobs.filter(told)
        .map(|job| {
            let mut blobs: Vec<BlobDigest> = job.blobs().collect();
            blobs.sort_unstable();
            blobs.dedup();
            blobs.retain(|blob| !is_needed(world, blob));
            Leavings {
                job: job.name.clone(),
                blobs,
            }
        })
        .collect()
}

fn is_needed(world: &World, blob: &BlobDigest) -> bool {
    let mut models = world.records.models.values();
    let mut jobs = world.records.jobs.values().filter(|job| !job.emptied);
    models.any(|model| model.blob == *blob) || jobs.any(|job| job.blobs().any(|b| b == *blob))
}

/// Those of the blobs that nothing needs. None while it is looked around after a restore: more may be needed than is known.
pub(crate) fn unused(world: &World, mut blobs: Vec<BlobDigest>) -> Vec<BlobDigest> {
    if world.settling {
        return Vec::new();
    }
    let models = world.records.models.values().map(|model| model.blob);
    let jobs = world.records.jobs.values().flat_map(JobRecord::blobs);
    let needed: BTreeSet<BlobDigest> = models.chain(jobs).collect();
    blobs.retain(|blob| !needed.contains(blob));
    blobs
}

/// What a deleted job left is removed: its record goes.
pub(crate) fn removed(world: &mut World, name: &JobName) -> Result<(), Problem> {
    let revision = match world.records.jobs.get(name) {
        Some(job) if job.emptied => job.revision,
        _ => return Ok(()),
    };
    world.records.jobs.remove(name);
    act::drop_attempts(world, &name.into(), Some(revision));
    world.happened(&Happened::Job(OfJob::Gone(name)));
    Ok(())
}

/// Whether a blob is what a job that is not being deleted works on: how much of it.
pub(crate) fn input_bytes(world: &World, blob: &BlobDigest) -> Option<u64> {
    let jobs = world.records.jobs.values().filter(|job| !job.deleting);
    jobs.flat_map(JobRecord::pieces)
        .filter(|piece| piece.blob == *blob)
        .map(|piece| piece.offset.saturating_add(piece.bytes))
        .max()
}

/// An agent is about to send a task's output: from now on its blob is kept. Errors: 409 if the task is not
/// the agent's, or not the attempt that may commit.
pub(crate) fn announce(
    world: &mut World,
    agent: &AgentName,
    task: &InstanceId,
    blob: BlobDigest,
) -> Result<(), Problem> {
    let refuse = |why: &str| Problem::conflict(format!("the output of {task} is not taken: {why}"));
    let record = world.records.instances.get(task);
    let Some(record) = record.filter(|r| agent.has(r)) else {
        return Err(refuse("it is no task of this node, or was given up"));
    };
    let Some(job) = tasks::job_of(world, record) else {
        return Err(refuse("it is no task"));
    };
    if record.stage != Stage::Running || !job.wants(task.slot.ordinal) {
        return Err(refuse("its job does not wait for it any more"));
    }
    let mut job = job.clone();
    job.announced.insert(task.slot.ordinal, blob);
    world.records.jobs.put(job.name.clone(), job);
    Ok(())
}

/// Whether a job has ended and every line of it is here. Errors: 404.
pub(crate) fn is_told(world: &World, name: &JobName) -> Result<bool, Problem> {
    let job = find(world, name)?;
    let records = &world.records;
    let mine = |id: &InstanceId| job.owns(id);
    let works = records
        .instances
        .values()
        .any(|r| mine(&r.id) && r.stage != Stage::Lost && r.status.phase != Phase::Stopped);
    if works || !(job.state.is_over() || job.deleting) {
        return Ok(false);
    }
    // What an agent still has, it may still have lines of. One that is away cannot be waited for; one that
    // was not heard of since this coordinator's start is, until its lease is over.
    let lease = world.started.after(world.settings.node_lease.0);
    let expected = records.nodes.values().any(|node| {
        !node.lost && world.session(&node.name) == Session::NotYet && world.now < lease
    });
    let ships = world
        .live
        .agents
        .values()
        .any(|agent| agent.session.is_some() && agent.reported.iter().any(mine));
    Ok(!expected && !ships)
}

/// Sets the cluster that has the job's Job.
fn with_job(world: &mut World, name: &JobName, change: impl FnOnce(&mut JobRecord)) {
    if let Some(mut job) = world.records.jobs.get(name).cloned() {
        change(&mut job);
        tasks::keep(world, job);
    }
}

/// A planned placement of a whole job.
fn set_cluster(world: &mut World, name: &JobName, cluster: Option<ClusterName>) {
    with_job(world, name, |job| job.cluster = cluster);
}

#[cfg(test)]
mod tests;
