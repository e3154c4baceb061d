//! Who holds a session: the agent of a node, or the one in a Pod.

use std::fmt;

use berth_model::id::{InstanceId, MAX_NAME, NodeName};
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

    /// What its certificate names: a DNS label. A Pod is told apart by its key, not by this name.
    pub fn label(&self) -> String {
        match self {
            Self::Node(name) => name.to_string(),
            Self::Pod(id) => {
                let id = id.to_string().replace('.', "-");
                // The end tells attempts apart; a service's name alone may be as long as a label.
                let text = format!("pod-{}", &id[id.len().saturating_sub(MAX_NAME - 4)..]);
                text.replace("pod--", "pod-")
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pod_has_a_name_that_a_certificate_can_carry() {
        let long = format!("{}-y.12.3.4", "x".repeat(61));
        for id in ["web.1.0.3", long.as_str()] {
            let label = AgentName::Pod(id.parse().unwrap()).label();
            assert!(NodeName::new(label.clone()).is_ok(), "{label}");
            assert!(label.starts_with("pod-") && label.len() <= MAX_NAME);
        }
    }
}
