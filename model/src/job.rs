//! Jobs: inference that runs to its end.
//!
//! A job's input is cut into shards, one per completion. A **task** is (job, index, attempt): one attempt to
//! turn one shard into its output. Its identity is an [`InstanceId`] whose service is the job's name, whose
//! revision is the job's (a job never changes), whose ordinal is the index and whose attempt is the attempt; so logs,
//! fencing and desired sets treat tasks and instances alike. The revision is the job's own number in the
//! count that revisions of a service of that name go by, so that an identity is never used again, whatever
//! had that name before.

mod life;
pub mod shards;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::{BlobDigest, PackageDigest};
use crate::id::{ClusterName, FleetName, InstanceId, JobName, ModelName};
use crate::node::RuntimeKind;
use crate::time::{Span, Timestamp};

/// Name of the process of `[job] command`.
pub const JOB_PROCESS: &str = "job";

/// Name of the process of Berth's batch driver, beside those of the module.
pub const DRIVER_PROCESS: &str = "driver";

/// What makes an instance a task: one shard to work off, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Which shard, from 0: `BERTH_JOB_INDEX`.
    pub index: u32,
    /// How many shards there are.
    pub completions: u32,
    /// What `BERTH_JOB_INPUT` holds.
    pub input: ShardInput,
    /// The longest this attempt may still run, if the job has a deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Span>,
}

/// One shard of the input.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardInput {
    /// `BERTH_JOB_INPUT` is a folder with the pieces as files by their names; otherwise it is one file, the
    /// pieces one after the other (empty if there are none).
    #[serde(default)]
    pub folder: bool,
    /// What the shard is made of.
    #[serde(default)]
    pub pieces: Vec<Piece>,
}

/// Some bytes of a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Relative path in the input folder, `/`-separated, without `.` and `..`; empty for a file input.
    #[serde(default)]
    pub name: String,
    /// The blob.
    pub blob: BlobDigest,
    /// First byte.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
}

/// What a task left in `BERTH_JOB_OUTPUT`, on the coordinator's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskOutput {
    /// The blob.
    pub blob: BlobDigest,
    /// Its size.
    pub bytes: u64,
    /// It is a `.tar.zst` of a folder; otherwise the file itself.
    #[serde(default)]
    pub folder: bool,
}

/// Desired and actual state of a job, as the store keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Its name.
    pub name: JobName,
    /// The revision in its tasks' identities; never used again within a name, even after deletion.
    pub revision: u32,
    /// The client's own key of the request that created it: the same key again makes no second job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// What it runs.
    pub model: ModelName,
    /// Serial of the model version.
    pub serial: u64,
    /// Semantic version of the model version.
    pub version: semver::Version,
    /// The package.
    pub digest: PackageDigest,
    /// What starts it.
    pub runtime: RuntimeKind,
    /// Labels that a node must have.
    #[serde(default)]
    pub node_labels: BTreeMap<String, String>,
    /// Environment variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// One shard per completion wanted, in the order of their indices.
    pub shards: Vec<ShardInput>,
    /// Why there are fewer shards than asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Shards that were asked for; none if as many were made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted_shards: Option<u32>,
    /// The fleet files that declare it; none if it was made by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetName>,
    /// Tasks at a time.
    pub parallelism: u32,
    /// Failed attempts, of all tasks together, that are made up for; one more fails the job.
    pub retries: u32,
    /// The longest it may take from its creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Span>,
    /// What holds for it.
    pub state: JobState,
    /// Committed outputs by index.
    #[serde(default)]
    pub outputs: BTreeMap<u32, TaskOutput>,
    /// How its failed attempts ended, oldest first; bounded.
    #[serde(default)]
    pub failures: Vec<TaskFailure>,
    /// Failed attempts so far (`failures` may hold fewer).
    #[serde(default)]
    pub failed: u32,
    /// On Kubernetes: which Pod (by its UID) works off which task. A Pod claims once.
    #[serde(default)]
    pub claims: BTreeMap<String, InstanceId>,
    /// On Kubernetes: the cluster that has its Job; set before the Job is made, cleared when it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterName>,
    /// The Kubernetes Job's UID, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Outputs that were announced and may be on their way, by index: their blobs are kept.
    #[serde(default)]
    pub announced: BTreeMap<u32, BlobDigest>,
    /// Set by delete: everything is stopped, then what it left is removed, then the record goes.
    #[serde(default)]
    pub deleting: bool,
    /// Deleting has come so far that nothing of it runs any more: its output and logs are being removed.
    #[serde(default)]
    pub emptied: bool,
    /// When it was created.
    pub created: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
}

/// One failed attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFailure {
    /// Which.
    pub task: InstanceId,
    /// Why.
    pub reason: crate::instance::Reason,
    /// The end of its output.
    #[serde(default)]
    pub last_lines: Vec<String>,
    /// When.
    pub time: Timestamp,
}

/// What holds for a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum JobState {
    /// Tasks wait or run.
    Running,
    /// Every shard's output is committed.
    Succeeded,
    /// It failed for good.
    Failed {
        /// The reason that decided it.
        reason: crate::instance::Reason,
    },
}

impl JobState {
    /// Whether nothing of it will run any more.
    pub fn is_over(&self) -> bool {
        !matches!(self, Self::Running)
    }
}
