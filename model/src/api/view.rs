//! Bodies that the coordinator answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::{BlobDigest, PackageDigest};
use crate::event::Level;
use crate::id::{
    ClusterName, FleetName, GatewayName, InstanceId, ModelName, NodeName, ServiceName,
};
use crate::instance::{InstanceStatus, Stage};
use crate::node::{Facts, NodeState, NodeStatistics, RuntimeKind};
use crate::place::Place;
use crate::resources::Resources;
use crate::time::{Span, Timestamp};

/// A list: `{"items": […]}`, so that fields can join it later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct List<T> {
    /// The things listed.
    pub items: Vec<T>,
}

/// `HEAD` and `PATCH /v1/blobs/{digest}`: how far an upload has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobView {
    /// The blob.
    pub digest: BlobDigest,
    /// Bytes that are on the coordinator's disk; the next chunk starts here.
    pub offset: u64,
    /// Whether it is whole and verified.
    pub complete: bool,
}

/// One model with its versions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelView {
    /// Its name.
    pub name: ModelName,
    /// Its versions, newest push first.
    pub versions: Vec<ModelVersionView>,
}

/// One version of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelVersionView {
    /// The model.
    pub name: ModelName,
    /// Semantic version.
    pub version: semver::Version,
    /// Serial.
    pub serial: u64,
    /// The package.
    pub digest: PackageDigest,
    /// Archive size in bytes.
    pub archive_bytes: u64,
    /// Size of the files in bytes.
    pub unpacked_bytes: u64,
    /// From the manifest.
    pub description: String,
    /// From the manifest.
    pub task: String,
    /// From the manifest.
    pub metrics: BTreeMap<String, f64>,
    /// What it asks for.
    pub resources: Resources,
    /// When it was pushed.
    pub pushed: Timestamp,
}

/// One service as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceView {
    /// Its name.
    pub name: ServiceName,
    /// What holds for it.
    pub state: ServiceState,
    /// Instances wanted.
    pub replicas: u32,
    /// Instances that are healthy and take traffic.
    pub ready: u32,
    /// The wanted revision's number.
    pub revision: u32,
    /// The model it runs (wanted revision).
    pub model: ModelName,
    /// The model's version (wanted revision).
    pub version: semver::Version,
    /// The model version's serial (wanted revision).
    pub serial: u64,
    /// Instances that may be missing at a time during a change without spare places.
    #[serde(default = "one")]
    pub max_unavailable: u32,
    /// The fleet files that declare it; none if it was made by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetName>,
    /// All revisions that still have instances or are wanted.
    pub revisions: Vec<RevisionView>,
    /// Its instances, the wanted revision's first.
    pub instances: Vec<InstanceView>,
    /// Why it is not as wanted, most important first; each says what to do where there is something to do.
    pub reasons: Vec<String>,
    /// While instances have no node: of each node that cannot take one, why. Only of one service by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rejected: BTreeMap<NodeName, String>,
    /// When it was created.
    pub created: Timestamp,
    /// When a user last changed it.
    pub updated: Timestamp,
}

fn one() -> u32 {
    1
}

/// What holds for a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceState {
    /// As many healthy instances of the wanted revision as wanted, and nothing left of others.
    Ready,
    /// On the way there.
    Progressing,
    /// Serving, but with fewer instances than wanted, and something stands in the way.
    Degraded,
    /// Nothing serves, and something stands in the way.
    Unavailable,
    /// On the way out.
    Deleting,
}

impl std::fmt::Display for ServiceState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Ready => "ready",
            Self::Progressing => "progressing",
            Self::Degraded => "degraded",
            Self::Unavailable => "unavailable",
            Self::Deleting => "deleting",
        })
    }
}

/// One revision of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RevisionView {
    /// Its number.
    pub number: u32,
    /// What it runs.
    pub model: ModelName,
    /// Semantic version.
    pub version: semver::Version,
    /// Serial.
    pub serial: u64,
    /// The package.
    pub digest: PackageDigest,
    /// What starts it.
    pub runtime: RuntimeKind,
    /// The pool that it is placed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// The failure domains that it is spread over; none for the usual ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<Vec<String>>,
    /// Instances it shall have now.
    pub replicas: u32,
    /// Instances that are healthy and take traffic.
    pub ready: u32,
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceView {
    /// Where it is: its node, or `cluster:NAME`.
    pub node: Place,
    /// Whether the node has a session, or the cluster is in reach.
    pub node_state: NodeState,
    /// How far its stopping has come.
    pub stage: Stage,
    /// UUIDs of the node's GPUs that are its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<String>,
    /// What its agent last said (`id` is in here).
    pub status: InstanceStatus,
    /// When it was created.
    pub created: Timestamp,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// Its name.
    pub name: NodeName,
    /// What holds for it.
    pub state: NodeState,
    /// Takes no new instances.
    pub cordoned: bool,
    /// How far its emptying has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainView>,
    /// What its agent found out.
    pub facts: Facts,
    /// All its labels.
    pub labels: BTreeMap<String, String>,
    /// The instances on it.
    pub instances: Vec<InstanceId>,
    /// When it joined.
    pub joined: Timestamp,
    /// What its agent last said of load, memory and disk; none if it has said nothing since the coordinator started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistics: Option<NodeStatistics>,
}

/// How far the emptying of a node has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainView {
    /// When it began.
    pub started: Timestamp,
    /// Instances and tasks that were on the node then.
    pub total: u32,
    /// How many of those are not there any more.
    pub moved: u32,
    /// What is left until the deadline; `0ms` when it is over.
    pub left: Span,
    /// At the deadline everything is stopped.
    pub force: bool,
    /// The deadline is over, and what is left stays unless the drain is forced.
    #[serde(default)]
    pub stuck: bool,
    /// When nothing was left on the node; absent while something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained: Option<Timestamp>,
    /// What it waits for.
    pub reasons: Vec<String>,
}

/// One Kubernetes cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterView {
    /// Its name.
    pub name: ClusterName,
    /// `ready`, `connecting` or `unreachable`.
    pub state: String,
    /// Why it cannot be used, or what does not work; empty when all is well.
    pub reason: String,
    /// Since when that holds.
    pub since: Timestamp,
    /// The namespace of Berth's Jobs.
    pub namespace: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The instances and tasks in it.
    pub instances: Vec<InstanceId>,
}

/// One gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GatewayView {
    /// Its name.
    pub name: GatewayName,
    /// Where clients reach it.
    pub url: String,
    /// Whether it follows the route table now.
    pub connected: bool,
    /// Whether it was sent away: no relay lets it in.
    #[serde(default)]
    pub revoked: bool,
    /// Of one that was sent away: the nodes of which it is not known whether their relays were told, as their agents are
    /// not connected or have trouble with them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub untold: Vec<NodeName>,
    /// Whether it has acknowledged the newest table.
    pub current: bool,
}

/// `POST /v1/tokens`: the token, shown once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenView {
    /// The whole token.
    pub token: String,
    /// When it ends.
    pub expires: Timestamp,
}

/// `GET /v1/status`: what is wrong?
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusView {
    /// The coordinator's version.
    pub version: String,
    /// Everything that somebody should look at, worst first; empty when all is well.
    pub problems: Vec<StatusProblem>,
    /// Nodes by state: ready, silent, lost.
    pub nodes: BTreeMap<String, u32>,
    /// Services by state.
    pub services: BTreeMap<String, u32>,
    /// Instances by phase.
    pub instances: BTreeMap<String, u32>,
    /// The gateways.
    pub gateways: Vec<GatewayView>,
    /// Jobs by state.
    #[serde(default)]
    pub jobs: BTreeMap<String, u32>,
    /// How gateways reach instances on nodes: `relay`, `plain`, `direct` (all on one machine) or several of them.
    #[serde(default)]
    pub transport: String,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusProblem {
    /// How bad.
    pub level: Level,
    /// What it is about, as in `service/web`.
    pub subject: String,
    /// What is wrong and what to do.
    pub message: String,
}
