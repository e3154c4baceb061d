//! Places: where an instance is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{ClusterName, IdError, NodeName};

const CLUSTER: &str = "cluster:";

/// Where an instance is: on a node, or in a Kubernetes cluster. Text form `NODE` or `cluster:NAME`,
/// which no node's name can be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Place {
    /// A machine with an agent. Silence beyond its lease means *lost*.
    Node(NodeName),
    /// A cluster. Out of reach means *hold*: what runs there is never taken for lost.
    Cluster(ClusterName),
}

impl Place {
    /// The node, if it is one.
    pub fn node(&self) -> Option<&NodeName> {
        match self {
            Self::Node(name) => Some(name),
            Self::Cluster(_) => None,
        }
    }

    /// The cluster, if it is one.
    pub fn cluster(&self) -> Option<&ClusterName> {
        match self {
            Self::Node(_) => None,
            Self::Cluster(name) => Some(name),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => name.fmt(f),
            Self::Cluster(name) => f.pad(&format!("{CLUSTER}{name}")),
        }
    }
}

impl FromStr for Place {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        match text.strip_prefix(CLUSTER) {
            Some(name) => ClusterName::new(name).map(Self::Cluster),
            None => NodeName::new(text).map(Self::Node),
        }
    }
}

impl TryFrom<String> for Place {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.to_string()
    }
}

impl From<NodeName> for Place {
    fn from(name: NodeName) -> Self {
        Self::Node(name)
    }
}

impl From<ClusterName> for Place {
    fn from(name: ClusterName) -> Self {
        Self::Cluster(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_and_clusters_are_told_apart_by_their_text() {
        for text in ["rack-7", "cluster:prod"] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        assert!("rack-7".parse::<Place>().unwrap().node().is_some());
        assert!("cluster:prod".parse::<Place>().unwrap().cluster().is_some());
        for bad in ["cluster:", "cluster:A", "a:b", ""] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }
}
