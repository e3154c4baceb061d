//! Jobs as the API shows them.

use std::collections::BTreeMap;

use berth_model::api::{JobStatus, JobView, ShardState, ShardView};
use berth_model::id::JobName;
use berth_model::instance::{InstanceRecord, Phase, Stage};
use berth_model::job::{JobRecord, JobState, TaskOutput};
use berth_model::node::NodeState;
use berth_model::place::Place;
use berth_model::problem::Problem;

use super::{reasons, service};
use crate::control::commands::jobs::find;
use crate::control::world::World;

/// All jobs by name, without their shards and failures.
pub(crate) fn all(world: &World) -> Vec<JobView> {
    let mut tasks = grouped(world);
    let jobs = world.records.jobs.values();
    jobs.map(|job| {
        let mine = tasks.remove(job.name.as_str()).unwrap_or_default();
        JobView {
            shards: Vec::new(),
            failures: Vec::new(),
            ..view(world, job, &mine)
        }
    })
    .collect()
}

/// One job. Errors: 404 with what may have been meant.
pub(crate) fn one(world: &World, name: &JobName) -> Result<JobView, Problem> {
    let job = find(world, name)?;
    let records = world.records.instances.values();
    let tasks: Vec<&InstanceRecord> = records.filter(|r| job.owns(&r.id)).collect();
    Ok(view(world, job, &tasks))
}

/// An index's committed output. Errors: 404 if it has none, and why.
pub(crate) fn output(world: &World, name: &JobName, index: u32) -> Result<TaskOutput, Problem> {
    let job = find(world, name)?;
    if let Some(output) = job.outputs.get(&index) {
        return Ok(output.clone());
    }
    let last = job.completions().saturating_sub(1);
    Err(Problem::not_found(if index > last {
        format!("job {name} has shards 0 to {last}, and none with index {index}")
    } else if job.state.is_over() {
        format!("shard {index} of job {name} has no output: see `berth job show {name}`")
    } else {
        format!("shard {index} of job {name} has no output yet")
    }))
}

/// Jobs by state, for the status page and the metrics.
pub(crate) fn by_state(world: &World) -> BTreeMap<String, u32> {
    let mut tasks = grouped(world);
    let mut out = BTreeMap::new();
    for job in world.records.jobs.values() {
        let mine = tasks.remove(job.name.as_str()).unwrap_or_default();
        *out.entry(state(job, at_work(&mine)).to_string())
            .or_default() += 1;
    }
    out
}

fn grouped(world: &World) -> BTreeMap<&str, Vec<&InstanceRecord>> {
    let mut out: BTreeMap<&str, Vec<&InstanceRecord>> = BTreeMap::new();
    for record in world.records.instances.values() {
        let job = world.records.jobs.get(record.id.slot.service.as_str());
        if let Some(job) = job.filter(|job| job.owns(&record.id)) {
            out.entry(job.name.as_str()).or_default().push(record);
        }
    }
    out
}

/// Whether a task holds its place still.
fn works(record: &InstanceRecord) -> bool {
    record.stage != Stage::Lost && record.status.phase != Phase::Stopped
}

fn at_work(tasks: &[&InstanceRecord]) -> usize {
    tasks.iter().filter(|r| works(r)).count()
}

fn state(job: &JobRecord, working: usize) -> JobStatus {
    match &job.state {
        _ if job.deleting => JobStatus::Deleting,
        JobState::Succeeded => JobStatus::Succeeded,
        JobState::Failed { .. } => JobStatus::Failed,
        JobState::Running if working > 0 => JobStatus::Running,
        JobState::Running => JobStatus::Waiting,
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn view(world: &World, job: &JobRecord, tasks: &[&InstanceRecord]) -> JobView {
    let working = at_work(tasks);
    let shards: Vec<ShardView> = (0..job.completions())
        .zip(&job.shards)
        .map(|(index, input)| ShardView {
            input_bytes: input.pieces.iter().map(|piece| piece.bytes).sum(),
            ..shard(world, job, tasks, index)
        })
        .collect();
    let waiting = shards.iter().filter(|s| s.state == ShardState::Waiting);
    JobView {
        name: job.name.clone(),
        state: state(job, working),
        model: job.model.clone(),
        version: job.version.clone(),
        serial: job.serial,
        digest: job.digest,
        runtime: job.runtime,
        completions: job.completions(),
        parallelism: job.parallelism,
        retries: job.retries,
        deadline: job.deadline,
        done: count(job.outputs.len()),
        running: count(working),
        waiting: count(waiting.count()),
        failed: job.failed,
        shards,
        reason: match &job.state {
            JobState::Failed { reason } => Some(reason.clone()),
            JobState::Running | JobState::Succeeded => None,
        },
        reasons: reasons(world, job, tasks),
        failures: job.failures.clone(),
        note: job.note.clone(),
        created: job.created,
        ended: job.ended,
    }
}

fn shard(world: &World, job: &JobRecord, tasks: &[&InstanceRecord], index: u32) -> ShardView {
    // What runs comes before what is told to stop, and a later attempt before an earlier one.
    let mine = tasks
        .iter()
        .filter(|r| r.id.slot.ordinal == index && works(r));
    let task = mine.min_by_key(|r| (r.stage, std::cmp::Reverse(r.id.attempt)));
    let output = job.outputs.get(&index);
    let attempts = world.records.attempts.get(&job.slot(index));
    ShardView {
        index,
        state: match (output, task) {
            (Some(_), _) => ShardState::Done,
            (None, Some(_)) => ShardState::Running,
            (None, None) => ShardState::Waiting,
        },
        input_bytes: 0,
        attempts: attempts.copied().unwrap_or(0),
        task: task.map(|record| service::instance(world, record)),
        output: output.cloned(),
    }
}

/// Why the job does not get on: what the planner says, then what ails its tasks.
fn reasons(world: &World, job: &JobRecord, tasks: &[&InstanceRecord]) -> Vec<String> {
    let mine = |w: &&berth_plan::Waiting| w.service.as_str() == job.name.as_str();
    let waiting = world.waiting.iter().filter(mine);
    let mut out: Vec<String> = waiting.map(|w| w.reason.to_string()).collect();
    if let Some(reason) = world.live.ends.waits.get(&job.name) {
        out.push(format!("its Pods do not begin: {reason}"));
    }
    for record in tasks.iter().filter(|r| works(r)) {
        let (id, place, status) = (&record.id, &record.place, &record.status);
        if let Place::Node(node) = place
            && world.node_state(node) != NodeState::Ready
        {
            out.push(format!(
                "{id} is on node {node}, which is not connected: look at its berth-agent (`berth node show \
                 {node}`)"
            ));
        } else if let Some(reason) = &status.reason {
            out.push(format!(
                "{id} on {place} is {}: {reason}",
                reasons::doing(status.phase)
            ));
        }
    }
    out
}
