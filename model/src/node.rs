//! Nodes: machines with an agent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::NodeName;
use crate::resources::Resources;
use crate::time::Timestamp;

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
}

/// Something of a node that does not work, while the rest does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Condition {
    /// What it is about, in one word, as in `docker`.
    pub kind: String,
    /// What is wrong and what to do.
    pub message: String,
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
    /// Takes no new instances.
    #[serde(default)]
    pub cordoned: bool,
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
