//! Jobs as the coordinator shows them.

use serde::{Deserialize, Serialize};

use super::InstanceView;
use crate::digest::PackageDigest;
use crate::id::{JobName, ModelName};
use crate::instance::Reason;
use crate::job::{TaskFailure, TaskOutput};
use crate::node::RuntimeKind;
use crate::time::{Span, Timestamp};

/// One job as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobView {
    /// Its name.
    pub name: JobName,
    /// What holds for it.
    pub state: JobStatus,
    /// What it runs.
    pub model: ModelName,
    /// The model's version.
    pub version: semver::Version,
    /// The model version's serial.
    pub serial: u64,
    /// The package.
    pub digest: PackageDigest,
    /// What starts it.
    pub runtime: RuntimeKind,
    /// How many shards there are.
    pub completions: u32,
    /// Tasks at a time.
    pub parallelism: u32,
    /// Failed attempts that are made up for, of all tasks together.
    pub retries: u32,
    /// The longest it may take from its creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Span>,
    /// Shards whose output is there.
    pub done: u32,
    /// Shards that a task works on.
    pub running: u32,
    /// Shards that wait for a task.
    pub waiting: u32,
    /// Failed attempts so far.
    pub failed: u32,
    /// Its shards by index; empty in lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shards: Vec<ShardView>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Why it does not get on, most important first; each says what to do where there is something to do.
    pub reasons: Vec<String>,
    /// How its latest failed attempts ended, oldest first; empty in lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<TaskFailure>,
    /// Why there are fewer shards than asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// When it was created.
    pub created: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
}

/// What holds for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobStatus {
    /// No task works yet or any more, and some shall.
    Waiting,
    /// Tasks work.
    Running,
    /// Every shard's output is there.
    Succeeded,
    /// It failed for good.
    Failed,
    /// On the way out.
    Deleting,
}

impl JobStatus {
    /// Whether nothing of it will run any more.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

impl std::fmt::Display for JobStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Deleting => "deleting",
        })
    }
}

/// One shard of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardView {
    /// Its index, from 0.
    pub index: u32,
    /// What holds for it.
    pub state: ShardState,
    /// Bytes of its input.
    pub input_bytes: u64,
    /// Attempts so far.
    pub attempts: u32,
    /// The attempt that works on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<InstanceView>,
    /// Its committed output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<TaskOutput>,
}

/// What holds for a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShardState {
    /// No task works on it.
    Waiting,
    /// A task works on it.
    Running,
    /// Its output is there.
    Done,
}

impl std::fmt::Display for ShardState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
        })
    }
}
