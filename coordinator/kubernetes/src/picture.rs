//! What is known of a cluster: the last state that shared watches have seen.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use berth_model::instance::Reason;

use crate::error::Error;
use crate::verdict::{Ending, LostPod, Verdict};
use crate::work::WorkId;

/// Whether a cluster can be used now.
#[derive(Debug, Clone)]
pub enum ClusterState {
    /// Nothing is known yet.
    Connecting,
    /// Its API server answers, and the watches run.
    Reachable {
        /// Since when.
        since: SystemTime,
        /// What does not work all the same: the right to see events is missing, so that reasons are poorer.
        lacking: Option<Error>,
    },
    /// Hold: what runs there runs on, and nothing is taken for gone.
    Unreachable {
        /// Since when.
        since: SystemTime,
        /// Why, and what to do.
        why: Error,
    },
}

impl ClusterState {
    /// Whether commands may be given.
    pub fn is_reachable(&self) -> bool {
        matches!(self, Self::Reachable { .. })
    }
}

/// Everything of this fleet in a cluster, as last seen.
#[derive(Debug, Clone)]
pub struct Picture {
    /// Whether it is up to date.
    pub state: ClusterState,
    /// Every Job was listed at least once since the coordinator started. Before, a Job's absence means nothing.
    pub complete: bool,
    /// Grows with every change.
    pub version: u64,
    /// Jobs by name; also those whose Job is gone but whose Pods are not.
    pub jobs: BTreeMap<String, Arc<Seen>>,
}

impl Picture {
    pub(crate) fn empty() -> Self {
        Self {
            state: ClusterState::Connecting,
            complete: false,
            version: 0,
            jobs: BTreeMap::new(),
        }
    }

    /// What holds for the Job of that name. None: nothing may be concluded, because the cluster was not listed
    /// yet, or cannot be reached and the Job was not seen. [`Verdict::Gone`] is only ever said by a cluster that
    /// answers.
    pub fn verdict(&self, name: &str) -> Option<Verdict> {
        match self.jobs.get(name) {
            Some(seen) => Some(seen.verdict.clone()),
            None if self.complete && self.state.is_reachable() => Some(Verdict::Gone),
            None => None,
        }
    }
}

/// One Job and its Pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The Job's name.
    pub name: String,
    /// Its UID: the identity of everything that its Pods report.
    pub uid: String,
    /// What it is for; none if its annotation is not ours.
    pub work: Option<WorkId>,
    /// The Job exists; otherwise only Pods are left of it.
    pub present: bool,
    /// It is being deleted.
    pub deleting: bool,
    /// Pods that ended well, by Kubernetes's count.
    pub succeeded: u32,
    /// Pods that failed, by Kubernetes's count.
    pub failed: u32,
    /// Its Pods, oldest first.
    pub pods: Vec<PodSeen>,
    /// Pods of it that are not there any more although it is: deleted by somebody, or evicted.
    pub lost_pods: Vec<LostPod>,
    /// What all of that means.
    pub verdict: Verdict,
}

/// One Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSeen {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its address, once it has one.
    pub ip: Option<IpAddr>,
    /// The machine it was given.
    pub machine: Option<String>,
    /// It is being deleted.
    pub deleting: bool,
    /// The module's container has started.
    pub started: bool,
    /// Why it has not started.
    pub waiting: Option<Reason>,
    /// How it ended.
    pub ended: Option<Ending>,
}

impl std::fmt::Display for ClusterState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connecting => f.write_str("connecting"),
            Self::Reachable { lacking: None, .. } => f.write_str("reachable"),
            Self::Reachable {
                lacking: Some(error),
                ..
            } => write!(f, "reachable, but {error}"),
            Self::Unreachable { why, .. } => write!(f, "unreachable: {why}"),
        }
    }
}
