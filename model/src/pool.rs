//! Pools: named sets of nodes and clusters, chosen by labels.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{FleetName, PoolName};
use crate::time::Timestamp;

/// The label that makes a pool where no record of that name does.
pub const POOL_LABEL: &str = "pool";

/// What the store keeps of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRecord {
    /// Its name.
    pub name: PoolName,
    /// Labels that a node or cluster must have to be in it.
    pub labels: BTreeMap<String, String>,
    /// The fleet files that declare it; none if it was made by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetName>,
    /// When it was created.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
}

/// Whether something with these labels is chosen by a selector.
pub fn chosen(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(k, v)| labels.get(k) == Some(v))
}
