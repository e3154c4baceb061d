//! Tasks: what they are told, and what becomes of their job as they end.

use berth_model::instance::{InstanceRecord, InstanceSpec, InstanceStatus, Phase, Reason, Stage};
use berth_model::job::{JobRecord, TaskFailure, TaskSpec};
use berth_model::time::Span;

use crate::control::events::{Happened, OfJob};
use crate::control::publish;
use crate::control::world::World;

/// Most bytes that are kept of one failure: a job's failures are part of its record.
const MAX_FAILURE: usize = 24 * 1024;

/// The job that a record is a task of; none for an instance of a service.
pub(crate) fn job_of<'a>(world: &'a World, record: &InstanceRecord) -> Option<&'a JobRecord> {
    let job = world.records.jobs.get(record.id.slot.service.as_str())?;
    job.owns(&record.id).then_some(job)
}

/// What the agent of a task is told. The same for the whole life of an attempt.
pub(crate) fn spec(
    world: &World,
    job: &JobRecord,
    record: &InstanceRecord,
) -> Option<InstanceSpec> {
    let key = (job.model.clone(), job.serial);
    let model = world.records.models.get(&key)?;
    let index = record.id.slot.ordinal;
    // Counted from the attempt's creation, so that a repeated order says the same.
    let deadline = job
        .due()
        .map(|due| Span::millis(due.0.saturating_sub(record.created.0).max(1)));
    Some(InstanceSpec {
        id: record.id.clone(),
        digest: model.digest,
        blob: model.blob,
        blob_bytes: model.blob_bytes,
        version: model.version.clone(),
        serial: model.serial,
        runtime: job.runtime,
        manifest: publish::without_golden(&model.manifest),
        env: job.env.clone(),
        intent: publish::intent(record),
        task: Some(TaskSpec {
            index,
            completions: job.completions(),
            input: job.shards.get(index as usize)?.clone(),
            deadline,
        }),
        gpus: record.gpus.clone(),
    })
}

/// An instance has ended for good. If it is a task, its output is committed or its failure counted: only
/// the attempt whose record runs may do either. What was told to stop or fenced ends without a trace.
pub(crate) fn ended(world: &mut World, stage: Stage, status: &InstanceStatus) {
    let id = &status.id;
    let Some(job) = world.records.jobs.get(id.slot.service.as_str()) else {
        return;
    };
    if !job.owns(id) {
        return;
    }
    let mut job = job.clone();
    let reason = status.reason.clone().unwrap_or(Reason::Unknown);
    match (&reason, &status.output) {
        (Reason::Completed, Some(output)) => {
            let wanted = stage == Stage::Running;
            if wanted && job.complete(id.slot.ordinal, output.clone(), world.wall) {
                world.happened(&Happened::Job(OfJob::TaskCompleted(id, output)));
            } else {
                let why = refusal(&job, id.slot.ordinal, stage);
                world.happened(&Happened::Job(OfJob::OutputRefused(id, &why)));
            }
        }
        _ if stage != Stage::Running => {}
        (Reason::Rebooted | Reason::StopRequested | Reason::KilledAfterGrace, _) => {
            world.happened(&Happened::Job(OfJob::TaskSetBack(id, &reason)));
        }
        _ => {
            let failure = failure(world, status, reason);
            job.fail(failure.clone());
            world.happened(&Happened::Job(OfJob::TaskFailed(&failure, &job)));
        }
    }
    keep(world, job);
}

/// Keeps a changed job, and tells if that was its end.
pub(crate) fn keep(world: &mut World, job: JobRecord) {
    let before = world.records.jobs.get(&job.name);
    if before.is_some_and(|b| !b.state.is_over()) && job.state.is_over() {
        world.happened(&Happened::Job(OfJob::Ended(&job)));
    }
    world.records.jobs.put(job.name.clone(), job);
}

fn refusal(job: &JobRecord, index: u32, stage: Stage) -> String {
    if job.outputs.contains_key(&index) {
        "its shard has an output already".to_owned()
    } else if stage == Stage::Lost {
        "its node was lost and the attempt given up; a later one works on the shard".to_owned()
    } else {
        format!("job {} does not wait for it any more", job.name)
    }
}

/// An output that came from an attempt without a record: it was given up and replaced long ago.
pub(crate) fn late(world: &mut World, status: &InstanceStatus) {
    let id = &status.id;
    let job = world.records.jobs.get(id.slot.service.as_str());
    let is_late = status.phase == Phase::Stopped && status.output.is_some();
    // An attempt that has committed is forgotten, too, before its agent has forgotten it.
    let blob = job.and_then(|j| j.outputs.get(&id.slot.ordinal));
    if is_late && job.is_some_and(|j| j.owns(id)) && blob != status.output.as_ref() {
        let why = "the attempt was given up; another one works on the shard or has done it";
        world.happened(&Happened::Job(OfJob::OutputRefused(id, why)));
    }
}

fn failure(world: &World, status: &InstanceStatus, reason: Reason) -> TaskFailure {
    let reason = match reason {
        Reason::Completed => Reason::Node {
            error: "the task ended well, but its agent brought no output".to_owned(),
        },
        other => other,
    };
    let mut failure = TaskFailure {
        task: status.id.clone(),
        reason,
        last_lines: status.last_lines.clone(),
        time: world.wall,
    };
    let bytes = |f: &TaskFailure| serde_json::to_vec(f).map_or(usize::MAX, |v| v.len());
    while bytes(&failure) > MAX_FAILURE {
        if failure.last_lines.is_empty() {
            failure.reason = Reason::Node {
                error: "the reason was too long to be kept".to_owned(),
            };
            break;
        }
        failure.last_lines.remove(0);
    }
    failure
}
