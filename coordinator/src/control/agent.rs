//! Who holds a session: the agent of a node, or the one in a Pod.

use std::fmt;

use berth_model::id::{InstanceId, NodeName};
use berth_model::instance::InstanceRecord;
use berth_model::place::Place;

/// An agent by what it looks after.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum AgentName {
    /// A machine's agent: everything that is placed on the node.
    Node(NodeName),
    /// The agent in a Pod: one instance in a cluster.
    Pod(InstanceId),
}

impl AgentName {
    /// Whose business a record is.
    pub(crate) fn of(record: &InstanceRecord) -> Self {
        match &record.place {
            Place::Node(node) => Self::Node(node.clone()),
            Place::Cluster(_) => Self::Pod(record.id.clone()),
        }
    }

    /// Whether a record is its business.
    pub(crate) fn has(&self, record: &InstanceRecord) -> bool {
        match (self, &record.place) {
            (Self::Node(name), Place::Node(node)) => name == node,
            (Self::Pod(id), Place::Cluster(_)) => *id == record.id,
            _ => false,
        }
    }

    /// The node, if it is a node's.
    pub(crate) fn node(&self) -> Option<&NodeName> {
        match self {
            Self::Node(name) => Some(name),
            Self::Pod(_) => None,
        }
    }
}

/// The node's name, or `pod/INSTANCE`.
impl fmt::Display for AgentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => name.fmt(f),
            Self::Pod(id) => write!(f, "pod/{id}"),
        }
    }
}

impl From<NodeName> for AgentName {
    fn from(name: NodeName) -> Self {
        Self::Node(name)
    }
}
