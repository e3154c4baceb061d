//! Everything that control knows: the records, what is live, and what the last plan said.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_model::event::Event;
use berth_model::id::{ClusterName, NodeName};
use berth_model::node::NodeState;
use berth_model::place::Place;
use berth_model::relay::Transport;
use berth_model::route::{Order, Table};
use berth_model::service::{ModelVersion, Revision};
use berth_model::time::{Monotonic, Timestamp};
use berth_plan::{Planner, Session, Settings, WaitReason, Waiting};

use super::agent::AgentName;
use super::clusters::Cluster;
use super::events::{Happened, KEPT};
use super::live::Live;
use super::records::Records;

/// The state that commands change and views read.
pub(crate) struct World {
    pub(crate) records: Records,
    pub(crate) live: Live,
    pub(crate) settings: Settings,
    /// Goes into every join token.
    pub(crate) ca_key_hash: String,
    /// Makes Pods' tokens.
    pub(crate) pod_key: [u8; 32],
    /// The configured clusters.
    pub(crate) clusters: BTreeMap<ClusterName, Cluster>,
    /// How gateways reach instances on nodes.
    pub(crate) transport: Transport,
    /// When this coordinator began to listen.
    pub(crate) started: Monotonic,
    /// The time of this turn of the loop.
    pub(crate) now: Monotonic,
    /// The same for people.
    pub(crate) wall: Timestamp,
    pub(crate) epoch: u64,
    pub(crate) term: u64,
    /// The store's revision after the last commit.
    pub(crate) revision: u64,
    /// The store was restored since the last run: what agents still run may be adopted.
    pub(crate) restored: bool,
    /// After a restore: looking, not acting.
    pub(crate) settling: bool,
    /// What was told to it is remembered.
    pub(crate) planner: Planner,
    /// What the last plan waits for.
    pub(crate) waiting: Vec<Waiting>,
    /// Why the last commit failed; none when it did not.
    pub(crate) store_problem: Option<String>,
    /// How much room there is on the disk.
    pub(crate) disk: crate::disk::Found,
    /// The route table that is published.
    pub(crate) table: Arc<Table>,
    /// Events of this batch, to be told once they are on disk.
    pub(crate) fresh: Vec<Event>,
}

impl World {
    /// Notes that something happened; kept and told with the batch's commit.
    pub(crate) fn happened(&mut self, what: &Happened<'_>) {
        let seq = self.records.events.keys().next_back().map_or(1, |s| s + 1);
        let event = what.event(seq, self.wall);
        self.fresh.push(event.clone());
        self.records.events.put(seq, event);
        while self.records.events.len() > KEPT {
            let Some(oldest) = self.records.events.keys().next().copied() else {
                return;
            };
            self.records.events.remove(&oldest);
        }
    }

    /// Whether a node's agent is there.
    pub(crate) fn session(&self, node: &NodeName) -> Session {
        let agent = AgentName::Node(node.clone());
        self.live
            .agent_session(&agent, self.settings.node_lease, self.now)
    }

    /// What holds for a node, as people see it.
    pub(crate) fn node_state(&self, node: &NodeName) -> NodeState {
        let lost = self.records.nodes.get(node).is_none_or(|n| n.lost);
        match self.session(node) {
            Session::Connected => NodeState::Ready,
            Session::Silent(_) | Session::NotYet if lost => NodeState::Lost,
            Session::Silent(_) | Session::NotYet => NodeState::Silent,
        }
    }

    /// What holds for a place, as people see it. A cluster out of reach is silent, never lost.
    pub(crate) fn place_state(&self, place: &Place) -> NodeState {
        match place {
            Place::Node(node) => self.node_state(node),
            Place::Cluster(name) => match self.clusters.get(name) {
                Some(cluster) if cluster.unreachable().is_none() => NodeState::Ready,
                _ => NodeState::Silent,
            },
        }
    }

    /// What a revision runs.
    pub(crate) fn model_of(&self, revision: &Revision) -> Option<&ModelVersion> {
        let key = (revision.model.clone(), revision.serial);
        self.records.models.get(&key)
    }

    /// The place in the order for something that changes now, after `last` of the same kind.
    pub(crate) fn order_after(&self, last: Option<Order>) -> Order {
        let last = last
            .filter(|o| o.term == self.term && o.epoch == self.epoch)
            .map_or(0, |o| o.generation);
        Order {
            epoch: self.epoch,
            term: self.term,
            generation: self.revision.max(last + 1),
        }
    }

    /// Silent nodes and all nodes, if replacing waits because too many fell silent.
    pub(crate) fn mass_loss(&self) -> Option<(u32, u32)> {
        self.waiting.iter().find_map(|w| match w.reason {
            WaitReason::MassLoss { silent, nodes } => Some((silent, nodes)),
            _ => None,
        })
    }
}
