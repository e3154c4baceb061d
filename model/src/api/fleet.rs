//! Fleets as a whole: what fleet files declare, and what would change.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{CreateJob, Deploy};
use crate::digest::PackageDigest;
use crate::id::{FleetName, InstanceId, JobName, ModelName, NodeName, PoolName, ServiceName};
use crate::time::Timestamp;

/// What fleet files declare: each entry is what the API's own request for such a thing is.
/// `GET /v1/export` answers with one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fleet {
    /// Whose files these are: what they declare is theirs, and only they may prune it.
    pub fleet: FleetName,
    /// Labels of nodes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<NodeName, NodeLabels>,
    /// Pools.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pools: BTreeMap<PoolName, PutPool>,
    /// Model versions that must be registered.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<ModelName, ModelWanted>,
    /// Services. `service` of the request is the name again, or absent.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<ServiceName, Deploy>,
    /// Jobs. `name` of the request is the name again, or absent; `request` is absent.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub jobs: BTreeMap<JobName, CreateJob>,
}

/// Labels that a node shall have; those that others gave it stay.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeLabels {
    /// The labels.
    pub labels: BTreeMap<String, String>,
}

/// `PUT /v1/pools/{pool}`: make a pool, or change what it chooses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutPool {
    /// Labels that a node or cluster must have to be in it; at least one.
    pub labels: BTreeMap<String, String>,
}

/// A model version that must be registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelWanted {
    /// Its semantic version.
    pub version: semver::Version,
    /// Its package; any if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<PackageDigest>,
    /// Whoever asks has the package at hand and registers it before applying: a plan goes by it already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub at_hand: bool,
}

/// `POST /v1/plan` and `POST /v1/apply`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FleetRequest {
    /// What is declared.
    pub fleet: Fleet,
    /// Remove what earlier applies of this fleet declared and what is not declared any more.
    pub prune: bool,
    /// Take over what another fleet's files declared; without it that is refused.
    pub adopt: bool,
    /// The `versions` of the plan that was looked at: refused (409) if it would be another one now. Without
    /// them whatever the plan is now is carried out.
    pub versions: Option<BTreeMap<String, String>>,
}

/// What would change, or what an apply has changed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FleetPlan {
    /// Whose files they are.
    pub fleet: FleetName,
    /// The changes in the order in which they are made.
    pub changes: Vec<FleetChange>,
    /// How many declared things are as declared.
    pub unchanged: u32,
    /// What was made by hand, or is another fleet's, and is this fleet's from now on.
    pub adopted: Vec<String>,
    /// What this fleet's files declared once and do not any more: `prune` removes it.
    pub leftover: Vec<String>,
    /// What may be a mistake; each begins with the entry it is about, as in `service.web.pool: `.
    pub warnings: Vec<String>,
    /// What was looked at, by thing: changes whenever its present or its declared state does.
    pub versions: BTreeMap<String, String>,
}

impl FleetPlan {
    /// Whether there is nothing to do, not even to note whose something is.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.adopted.is_empty()
    }
}

/// One thing that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetChange {
    /// What: `node/NAME`, `pool/NAME`, `model/NAME`, `service/NAME`, `job/NAME`.
    pub subject: String,
    /// How.
    pub action: ChangeAction,
    /// Field by field.
    pub fields: Vec<FieldChange>,
    /// What that moves, starts or stops.
    pub effects: Vec<Effect>,
}

/// How something changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeAction {
    /// It is new.
    Create,
    /// It is there and becomes different.
    Change,
    /// It goes.
    Delete,
}

/// One field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    /// Which, as in `replicas` or `env.LOG`.
    pub field: String,
    /// What it is; none if it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// What it shall be; none if it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
}

/// What a change moves, starts or stops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// What kind of thing happens.
    pub kind: EffectKind,
    /// To how many instances or tasks.
    pub count: u32,
    /// To which, where that is known beforehand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<InstanceId>,
    /// The same as a sentence.
    pub message: String,
}

/// What happens to instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EffectKind {
    /// New ones start.
    Start,
    /// They are replaced one by one.
    Replace,
    /// They drain and stop.
    Stop,
    /// They are where they would not be placed any more, and stay there.
    Stay,
}

/// One pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolView {
    /// Its name.
    pub name: PoolName,
    /// Labels that a node or cluster must have to be in it.
    pub labels: BTreeMap<String, String>,
    /// The fleet files that declare it; none if it was made by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetName>,
    /// The nodes in it now, and the clusters as `cluster:NAME`.
    pub places: Vec<crate::place::Place>,
    /// The services and jobs that are placed in it, as `service/NAME` and `job/NAME`.
    pub users: Vec<String>,
    /// When it was created.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
}
