//! Nodes: machines with an agent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{FleetName, NodeName};
use crate::relay::{RelayFacts, RelayStatistics};
use crate::resources::Resources;
use crate::time::{Span, Timestamp};

/// Physical machines pack instances by resources; virtual ones take one at a time by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeKind {
    /// Hardware.
    Physical,
    /// A virtual machine.
    #[default]
    Virtual,
}

impl NodeKind {
    /// The word for it, in labels and on screens.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Physical => "physical",
            Self::Virtual => "virtual",
        }
    }
}

/// The label by which every node can be chosen by its kind.
pub const KIND_LABEL: &str = "kind";

/// What starts a module.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeKind {
    /// A process on the node.
    #[default]
    Process,
    /// A container on the node.
    Docker,
    /// A Kubernetes Job.
    Kubernetes,
}

impl std::fmt::Display for RuntimeKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Process => "process",
            Self::Docker => "docker",
            Self::Kubernetes => "kubernetes",
        })
    }
}

impl std::str::FromStr for RuntimeKind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "process" => Ok(Self::Process),
            "docker" => Ok(Self::Docker),
            "kubernetes" => Ok(Self::Kubernetes),
            other => Err(format!(
                "{other:?} is not a runtime: use process, docker or kubernetes"
            )),
        }
    }
}

/// What an agent finds out about its machine.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// Physical or virtual, as detected or configured.
    pub kind: NodeKind,
    /// Whether the node takes one instance at a time.
    pub exclusive: bool,
    /// What the machine has in all.
    pub capacity: Resources,
    /// Labels from the agent's configuration.
    pub labels: BTreeMap<String, String>,
    /// Runtimes that work here.
    pub runtimes: Vec<RuntimeKind>,
    /// What modules work here beside those that bring all they need: `tf-serving`, `python`.
    pub modules: Vec<String>,
    /// Host name.
    pub hostname: String,
    /// Operating system and kernel, for people.
    pub os: String,
    /// Processor architecture as Rust names it, as in `x86_64`.
    pub arch: String,
    /// The agent's version.
    pub agent_version: String,
    /// `/etc/machine-id`, to tell two machines apart.
    pub machine_id: String,
    /// This boot's id.
    pub boot_id: String,
    /// What does not work here just now, with what to do about it; empty when all does.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Its GPUs, or the parts of them that can be given away one by one. `capacity.gpus` counts them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<Gpu>,
    /// What the machine runs in, in the words of `systemd-detect-virt`, as in `kvm` or `docker`; none on bare metal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtualization: Option<String>,
    /// The node's relay; none where gateways reach instances without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay: Option<RelayFacts>,
    /// How instances that are plain processes are kept apart; none where the agent has not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
}

/// How instances are kept from each other and from the node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Isolation {
    /// What starts them: `systemd`, `fork` or `none`.
    pub launcher: String,
    /// What is enforced, a word each, as in `memory`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub enforced: Vec<String>,
    /// What is not, with why, as in `egress: …`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// A GPU of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Gpu {
    /// What it is told apart by, also across boots: `GPU-…`, or `MIG-…` for a part of one.
    pub uuid: String,
    /// Its maker's name for it.
    pub name: String,
    /// Its memory in bytes.
    pub memory_bytes: u64,
    /// The driver's version.
    pub driver: String,
}

/// What changes all the time on a node; told with heartbeats and never stored.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeStatistics {
    /// Runnable processes on average over the last 1, 5 and 15 minutes.
    pub load: [f64; 3],
    /// Seconds since the machine booted.
    pub uptime_secs: u64,
    /// Memory in use, of `capacity.memory_bytes`.
    pub memory_used_bytes: u64,
    /// Memory that new programs can have without swapping.
    pub memory_available_bytes: u64,
    /// Size of the file system of the agent's data.
    pub disk_total_bytes: u64,
    /// What is free there for the agent.
    pub disk_free_bytes: u64,
    /// Bytes of the unpacked packages that the agent keeps.
    pub packages_bytes: u64,
    /// What its GPUs do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<GpuStatistics>,
    /// What its relay does; none where there is none, or it does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay: Option<RelayStatistics>,
}

/// What a GPU does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuStatistics {
    /// Which.
    pub uuid: String,
    /// Its memory in use.
    pub memory_used_bytes: u64,
    /// Percentage of the last moment in which it computed; none where it does not tell, as parts of GPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busy_percent: Option<u32>,
}

/// Something of a node that does not work, while the rest does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Condition {
    /// What it is about, in one word, as in `docker`.
    pub kind: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl Condition {
    /// No room is left where the agent keeps its data: it takes nothing new.
    pub const DISK_FULL: &str = "disk-full";
    /// Little room is left there.
    pub const DISK_LOW: &str = "disk-low";
    /// A GPU that was there does not answer.
    pub const GPU: &str = "gpu";
    /// Gateways cannot be told how to reach the node's instances.
    pub const RELAY: &str = "relay";

    /// What there is beside runtimes, whose conditions are named after them.
    pub const ALL: [&str; 4] = [Self::DISK_FULL, Self::DISK_LOW, Self::GPU, Self::RELAY];
}

/// What the store keeps of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// The node's name.
    pub name: NodeName,
    /// SHA-256 of the node's public key (SubjectPublicKeyInfo, DER), hexadecimal: the pinned identity.
    pub key_hash: String,
    /// The latest facts that were worth keeping.
    pub facts: Facts,
    /// Labels from the join token and from the admin; they win over the facts' labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Which of `labels` fleet files declare, by key: the fleet's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub declared: BTreeMap<String, FleetName>,
    /// Takes no new instances.
    #[serde(default)]
    pub cordoned: bool,
    /// Set while the node is emptied, and when it is empty; cleared by `uncordon`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<NodeDrain>,
    /// Set when the node was declared lost; cleared when it returns.
    #[serde(default)]
    pub lost: bool,
    /// When it joined.
    pub joined: Timestamp,
}

impl NodeRecord {
    /// The facts' labels overlaid with the record's.
    pub fn all_labels(&self) -> BTreeMap<String, String> {
        let mut all = self.facts.labels.clone();
        all.extend(self.labels.clone());
        all
    }

    /// What pools choose the node by: its labels, and its kind as the label `kind` where it has no other of that name.
    pub fn place_labels(&self) -> BTreeMap<String, String> {
        let mut all = self.all_labels();
        let kind = self.facts.kind.as_str().to_owned();
        all.entry(KIND_LABEL.to_owned()).or_insert(kind);
        all
    }
}

/// How the emptying of a node goes on; a coordinator that starts anew goes on by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDrain {
    /// When it began.
    pub started: Timestamp,
    /// Instances and tasks that were on the node then.
    pub total: u32,
    /// What was left until the deadline when that was last noted. It is counted on a clock that does not
    /// jump, while a coordinator runs.
    pub left: Span,
    /// At the deadline everything is stopped, whatever the services' `max_unavailable` says.
    #[serde(default)]
    pub force: bool,
    /// When nothing was left on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained: Option<Timestamp>,
}

/// What holds for a node now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Its agent has a session.
    Ready,
    /// No session, but its lease is not over: nothing is replaced yet.
    Silent,
    /// Its lease is over: its instances are replaced elsewhere.
    Lost,
}
