//! Kubernetes clusters as control sees them: what is ordered of them, what they report, who joins from
//! them. Plain data both ways; whoever talks to an API server is another task ([`crate::clusters`]).

mod orders;
mod pods;
mod reports;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use berth_model::id::{ClusterName, InstanceId, JobName, Slot};
use berth_model::instance::Reason;
use berth_model::manifest::Manifest;
use berth_model::time::{Monotonic, Span, Timestamp};
use tokio::sync::watch;

pub(crate) use orders::publish;
pub(crate) use pods::join;
pub(crate) use reports::{note_end, reach, take};

/// What control is told of a configured cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterInfo {
    /// Its name.
    pub name: ClusterName,
    /// Its labels, for pools.
    pub labels: BTreeMap<String, String>,
    /// The namespace of Berth's Jobs.
    pub namespace: String,
}

/// Whether a cluster can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Nothing is known yet.
    Connecting,
    /// Its API server answers.
    Ready {
        /// What does not work all the same.
        lacking: Option<String>,
    },
    /// It does not, or not as configured: hold.
    Unreachable {
        /// Why, and what to do.
        why: String,
    },
}

/// One cluster.
pub(crate) struct Cluster {
    pub(crate) info: ClusterInfo,
    pub(crate) reach: Reach,
    pub(crate) since: Timestamp,
    pub(crate) orders: watch::Sender<Arc<Orders>>,
}

impl Cluster {
    pub(crate) fn new(info: ClusterInfo, now: Timestamp) -> Self {
        Self {
            info,
            reach: Reach::Connecting,
            since: now,
            orders: watch::Sender::new(Arc::default()),
        }
    }

    /// Why nothing can be done there now.
    pub(crate) fn unreachable(&self) -> Option<String> {
        match &self.reach {
            Reach::Connecting => Some("it has not answered yet".to_owned()),
            Reach::Ready { .. } => None,
            Reach::Unreachable { why } => Some(why.clone()),
        }
    }
}

/// What is known of clusters' instances in this term only.
#[derive(Default)]
pub(crate) struct Ends {
    /// Neither the Job nor a Pod is there any more.
    pub(crate) gone: BTreeSet<InstanceId>,
    /// When an instance was seen to have ended by itself.
    pub(crate) ended: BTreeMap<InstanceId, Monotonic>,
    /// Ends in a row, by place.
    pub(crate) streaks: BTreeMap<Slot, u32>,
    /// What keeps a job's Pods from beginning.
    pub(crate) waits: BTreeMap<JobName, Reason>,
}

/// Everything that a cluster shall run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Orders {
    /// Until it is set, nothing may be made or deleted (after a restore, say).
    pub settled: bool,
    /// By what it is for.
    pub works: BTreeMap<WorkName, WorkOrder>,
}

/// What a Kubernetes Job is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum WorkName {
    /// An instance of a service.
    Instance(InstanceId),
    /// A whole job.
    Job {
        /// Its name.
        name: JobName,
        /// When it was created: a name may be used again.
        born: u64,
    },
}

/// `instance:ID` or `job:NAME@BORN`.
impl std::fmt::Display for WorkName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Instance(id) => write!(f, "instance:{id}"),
            Self::Job { name, born } => write!(f, "job:{name}@{born}"),
        }
    }
}

impl std::str::FromStr for WorkName {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        if let Some(id) = text.strip_prefix("instance:") {
            return id.parse().map(Self::Instance).map_err(|_| ());
        }
        let job = text.strip_prefix("job:").and_then(|t| t.split_once('@'));
        let (name, born) = job.ok_or(())?;
        Ok(Self::Job {
            name: name.parse().map_err(|_| ())?,
            born: born.parse().map_err(|_| ())?,
        })
    }
}

/// One Kubernetes Job that shall or shall not be there.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkOrder {
    /// Whether it shall be there.
    pub present: bool,
    /// Its UID, once it was made: it is never made a second time.
    pub uid: Option<String>,
    /// What it runs.
    pub manifest: Arc<Manifest>,
    /// How often; none for an instance of a service.
    pub counted: Option<Counted>,
    /// With what its Pods join.
    pub token: String,
}

/// How often a job's Pod runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Pods that must end well.
    pub completions: u32,
    /// Pods at a time.
    pub parallelism: u32,
    /// Failed Pods that are made up for.
    pub retries: u32,
    /// The longest it may take.
    pub deadline: Option<Span>,
}

/// What is reported of one Kubernetes Job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkReport {
    /// What it is for.
    pub work: WorkName,
    /// Its name in the cluster.
    pub job: String,
    /// Its UID; empty if it does not exist.
    pub uid: String,
    /// What holds for it.
    pub news: WorkNews,
    /// Its Pods.
    pub pods: Vec<PodReport>,
}

/// What holds for a Kubernetes Job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkNews {
    /// It waits for something, or begins.
    Waiting(Option<Reason>),
    /// Its module runs.
    Running,
    /// It is over.
    Ended {
        /// Why.
        reason: Reason,
        /// The end of what it printed, as far as the cluster tells.
        last_lines: Vec<String>,
    },
    /// It is being deleted.
    Deleting,
    /// Neither it nor a Pod of it exists.
    Gone,
    /// It cannot be made.
    Refused(Reason),
}

/// One Pod of a Kubernetes Job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodReport {
    /// Its UID.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// How it ended, with the last lines.
    pub ended: Option<(Reason, Vec<String>)>,
}

/// Makes the secret part of a Pod's token: an HMAC, so that none has to be kept.
pub(crate) fn pod_secret(key: &[u8; 32], work: &WorkName) -> String {
    use base64::Engine;
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
    let tag = ring::hmac::sign(&key, work.to_string().as_bytes());
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(tag.as_ref())
}

#[cfg(test)]
mod tests;
