//! The route table: what a gateway needs to send a request to the right instance.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::id::{InstanceId, ServiceName};
use crate::manifest::{Limits, Protocol};
use crate::relay::Relayed;

/// Order of commands and tables: a restore raises `epoch`, a new leader `term`, each change
/// `generation`. Later compares greater.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Order {
    /// The store's epoch: raised by every restore from a backup.
    pub epoch: u64,
    /// The leader's term: raised by every start of a coordinator.
    pub term: u64,
    /// The change's number within the term.
    pub generation: u64,
}

impl std::fmt::Display for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.epoch, self.term, self.generation)
    }
}

/// Everything a gateway routes by; replaced as a whole.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Table {
    /// Which table this is; a gateway refuses an older one.
    pub version: Order,
    /// The services that exist, also those with no instance ready.
    pub services: BTreeMap<ServiceName, ServiceRoute>,
}

/// How one service's requests are routed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ServiceRoute {
    /// The revisions that take traffic, by number.
    pub revisions: BTreeMap<u32, RevisionRoute>,
    /// Why there is no instance, in a sentence for the client; empty when there is one.
    #[serde(default)]
    pub unavailable_reason: String,
}

/// One revision of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RevisionRoute {
    /// The model version's serial: `/versions/SERIAL` of TF Serving's API.
    pub serial: u64,
    /// The model's semantic version.
    pub version: semver::Version,
    /// Where `:predict` goes if not at TF Serving's own path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predict_path: Option<String>,
    /// What the instances speak.
    #[serde(default)]
    pub protocol: Protocol,
    /// The manifest's limits.
    #[serde(default)]
    pub limits: Limits,
    /// The instances that are ready, each with the address to dial.
    pub instances: BTreeMap<InstanceId, SocketAddr>,
    /// The instances that are ready and are reached through their nodes' relays. Beside the others, so that a
    /// gateway that knows no relays does not dial one in the clear.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub relayed: BTreeMap<InstanceId, Relayed>,
}

impl RevisionRoute {
    /// Whether an instance is among those that are ready, however it is reached.
    pub fn has(&self, id: &InstanceId) -> bool {
        self.instances.contains_key(id) || self.relayed.contains_key(id)
    }
}
