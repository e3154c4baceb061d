//! What happens to jobs and their tasks.

use berth_model::event::Level;
use berth_model::id::{InstanceId, JobName};
use berth_model::instance::Reason;
use berth_model::job::{JobRecord, JobState, TaskFailure, TaskOutput};

/// One thing that happened to a job.
#[derive(Debug)]
pub(crate) enum OfJob<'a> {
    Created(&'a JobRecord),
    Ended(&'a JobRecord),
    Deleted(&'a JobName),
    Gone(&'a JobName),
    TaskCompleted(&'a InstanceId, &'a TaskOutput),
    TaskFailed(&'a TaskFailure, &'a JobRecord),
    /// An attempt was ended by its node, which is nobody's fault.
    TaskSetBack(&'a InstanceId, &'a Reason),
    TaskStopping(&'a InstanceId, &'a str),
    /// An output came that is not taken, and why.
    OutputRefused(&'a InstanceId, &'a str),
}

impl OfJob<'_> {
    pub(super) fn kind(&self) -> (Level, &'static str) {
        match self {
            Self::Created(_) => (Level::Info, "job-created"),
            Self::Ended(job) => match job.state {
                JobState::Failed { .. } => (Level::Error, "job-failed"),
                JobState::Running | JobState::Succeeded => (Level::Info, "job-succeeded"),
            },
            Self::Deleted(_) => (Level::Info, "job-deleted"),
            Self::Gone(_) => (Level::Info, "job-gone"),
            Self::TaskCompleted(..) => (Level::Info, "task-completed"),
            Self::TaskFailed(..) => (Level::Warning, "task-failed"),
            Self::TaskSetBack(..) => (Level::Warning, "task-set-back"),
            Self::TaskStopping(..) => (Level::Info, "task-stopping"),
            Self::OutputRefused(..) => (Level::Warning, "output-refused"),
        }
    }

    pub(super) fn subject(&self) -> String {
        match self {
            Self::Created(job) | Self::Ended(job) => format!("job/{}", job.name),
            Self::Deleted(name) | Self::Gone(name) => format!("job/{name}"),
            Self::TaskFailed(failure, _) => format!("instance/{}", failure.task),
            Self::TaskCompleted(id, _)
            | Self::TaskSetBack(id, _)
            | Self::TaskStopping(id, _)
            | Self::OutputRefused(id, _) => format!("instance/{id}"),
        }
    }

    pub(super) fn message(&self) -> String {
        match self {
            Self::Created(job) => format!(
                "{}: {} {} (#{}) over {} shard{}, {} at a time",
                job.name,
                job.model,
                job.version,
                job.serial,
                job.completions(),
                if job.completions() == 1 { "" } else { "s" },
                job.parallelism
            ),
            Self::Ended(job) => match &job.state {
                JobState::Failed { reason } => format!("{} failed: {reason}", job.name),
                JobState::Running | JobState::Succeeded => {
                    format!("{} has succeeded: every shard has its output", job.name)
                }
            },
            Self::Deleted(name) => format!("{name} is being deleted: its tasks stop"),
            Self::Gone(name) => format!("{name} is gone, with its output and logs"),
            Self::TaskCompleted(id, output) => {
                format!("{id} is done: {} bytes of output", output.bytes)
            }
            Self::TaskFailed(failure, job) => {
                let last = failure.last_lines.last();
                let last = last.map(|line| format!("; last line: {line:?}"));
                format!(
                    "{} failed: {} (failure {} of at most {}){}",
                    failure.task,
                    failure.reason,
                    job.failed,
                    job.retries,
                    last.unwrap_or_default()
                )
            }
            Self::TaskSetBack(id, reason) => {
                format!("{id} was ended by its node ({reason}); its shard is tried again")
            }
            Self::TaskStopping(id, why) => format!("{id} is told to stop: {why}"),
            Self::OutputRefused(id, why) => format!("the output of {id} is not taken: {why}"),
        }
    }
}
