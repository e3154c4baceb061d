//! What people do with nodes, and how far that has come.

use berth_model::event::Level;
use berth_model::id::NodeName;
use berth_model::node::NodeDrain;

/// One thing that happened to a node.
#[derive(Debug)]
pub(crate) enum OfNode<'a> {
    Cordoned(&'a NodeName),
    Uncordoned(&'a NodeName),
    /// It is being emptied, or the terms of that have changed.
    Draining(&'a NodeName, &'a NodeDrain),
    Drained(&'a NodeName),
    /// Its labels from now on.
    Labelled(&'a NodeName, String),
}

impl OfNode<'_> {
    pub(super) fn kind(&self) -> (Level, &'static str) {
        let kind = match self {
            Self::Cordoned(_) => "node-cordoned",
            Self::Uncordoned(_) => "node-uncordoned",
            Self::Draining(..) => "node-draining",
            Self::Drained(_) => "node-drained",
            Self::Labelled(..) => "node-labelled",
        };
        (Level::Info, kind)
    }

    pub(super) fn subject(&self) -> String {
        match self {
            Self::Cordoned(node)
            | Self::Uncordoned(node)
            | Self::Draining(node, _)
            | Self::Drained(node)
            | Self::Labelled(node, _) => format!("node/{node}"),
        }
    }

    pub(super) fn message(&self) -> String {
        match self {
            Self::Cordoned(node) => format!("{node} is cordoned: it takes nothing new"),
            Self::Uncordoned(node) => format!("{node} takes instances again"),
            Self::Draining(node, drain) => {
                let force = if drain.force { ", then by force" } else { "" };
                format!(
                    "{node} is drained: what is on it ({}) moves to other nodes; deadline in {}{force}",
                    drain.total, drain.left
                )
            }
            Self::Drained(node) => {
                format!("{node} is drained: nothing is left on it, and nothing new comes")
            }
            Self::Labelled(node, labels) if labels.is_empty() => {
                format!("{node} has no labels now")
            }
            Self::Labelled(node, labels) => format!("{node} has the labels {labels} now"),
        }
    }
}
