//! Services and registered models, as the store keeps them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::{BlobDigest, PackageDigest};
use crate::id::{FleetName, ModelName, ServiceName};
use crate::manifest::Manifest;
use crate::node::RuntimeKind;
use crate::time::Timestamp;

/// One pushed version of a model; immutable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelVersion {
    /// The model's name.
    pub name: ModelName,
    /// Its semantic version.
    pub version: semver::Version,
    /// 1, 2, … in the order of pushes; TF Serving's integer version.
    pub serial: u64,
    /// The package.
    pub digest: PackageDigest,
    /// The archive as pushed.
    pub blob: BlobDigest,
    /// The archive's size in bytes.
    pub blob_bytes: u64,
    /// Size of the package's files in bytes.
    pub unpacked_bytes: u64,
    /// The manifest.
    pub manifest: Manifest,
    /// When it was pushed.
    pub pushed: Timestamp,
}

/// Desired state of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// Its name.
    pub name: ServiceName,
    /// Its revisions that still have a purpose, by number. The highest is the one wanted; the others
    /// are on their way out.
    pub revisions: BTreeMap<u32, Revision>,
    /// How many instances there shall be in all.
    pub replicas: u32,
    /// Set by delete: everything is drained and stopped, then the record goes.
    #[serde(default)]
    pub deleting: bool,
    /// Instances that may be missing at a time during a change without spare places.
    #[serde(default = "one")]
    pub max_unavailable: u32,
    /// The fleet files that declare it; none if it was made by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetName>,
    /// When it was created.
    pub created: Timestamp,
    /// When it was last changed by a user.
    pub updated: Timestamp,
}

fn one() -> u32 {
    1
}

impl ServiceRecord {
    /// The wanted revision: the one with the highest number.
    pub fn current(&self) -> Option<&Revision> {
        self.revisions.values().next_back()
    }
}

/// One immutable specification of a service, with the number of instances it shall have now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// Its number, from 1; never used again within a service name.
    pub number: u32,
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
    /// Pool to place in, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Labels of the failure domains to spread over, the widest first; [`FAILURE_DOMAINS`] if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<Vec<String>>,
    /// Environment variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// How many instances this revision shall have, as the rollout has decided so far.
    pub replicas: u32,
    /// When it was created.
    pub created: Timestamp,
}

/// Labels by which nodes share a fate, the widest first: what instances are spread over unless a service says
/// otherwise.
pub const FAILURE_DOMAINS: [&str; 3] = ["zone", "rack", "host"];

/// [`FAILURE_DOMAINS`] as a revision's own list would be.
pub fn default_failure_domains() -> Vec<String> {
    FAILURE_DOMAINS.map(str::to_owned).to_vec()
}

impl Revision {
    /// Labels of the failure domains that its instances are spread over.
    pub fn failure_domains(&self) -> Vec<String> {
        self.spread.clone().unwrap_or_else(default_failure_domains)
    }
}
