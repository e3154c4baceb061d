//! Nodes as the API shows them.

use std::collections::BTreeMap;

use berth_model::api::NodeView;
use berth_model::id::NodeName;
use berth_model::node::{NodeRecord, NodeState};
use berth_model::problem::Problem;

use crate::control::Machine;
use crate::control::agent::AgentName;
use crate::control::world::World;

/// All nodes by name.
pub(crate) fn all(world: &World) -> Vec<NodeView> {
    let nodes = world.records.nodes.values();
    nodes.map(|record| view(world, record)).collect()
}

/// One node. Errors: 404.
pub(crate) fn one(world: &World, name: &NodeName) -> Result<NodeView, Problem> {
    let record = world.records.nodes.get(name).ok_or_else(|| {
        let known: Vec<&str> = world.records.nodes.keys().map(NodeName::as_str).collect();
        let hint = berth_model::manifest::suggest::did_you_mean(name.as_str(), &known);
        Problem::not_found(format!(
            "there is no node {name}{hint}; `berth node list` shows all"
        ))
    })?;
    Ok(view(world, record))
}

fn view(world: &World, record: &NodeRecord) -> NodeView {
    let instances = world.records.instances.values();
    let agent = AgentName::Node(record.name.clone());
    let live = world.live.agents.get(&agent);
    NodeView {
        name: record.name.clone(),
        state: world.node_state(&record.name),
        cordoned: record.cordoned,
        facts: record.facts.clone(),
        labels: record.all_labels(),
        instances: instances
            .filter(|i| i.place.node() == Some(&record.name))
            .map(|i| i.id.clone())
            .collect(),
        joined: record.joined,
        statistics: live.and_then(|live| live.statistics.clone()),
    }
}

/// What all nodes do. Of those that are not there nothing is told but their conditions.
pub(crate) fn machines(world: &World) -> Vec<Machine> {
    let nodes = world.records.nodes.values();
    let machine = |record: &NodeRecord| {
        let agent = AgentName::Node(record.name.clone());
        let live = world.live.agents.get(&agent);
        let connected = live.filter(|live| live.session.is_some());
        let conditions = record.facts.conditions.iter();
        Machine {
            node: record.name.clone(),
            statistics: connected.and_then(|live| live.statistics.clone()),
            capacity: record.facts.capacity,
            conditions: conditions.map(|c| c.kind.clone()).collect(),
        }
    };
    nodes.map(machine).collect()
}

/// How many nodes are ready, silent and lost; all three always named.
pub(crate) fn by_state(world: &World) -> BTreeMap<String, u32> {
    let mut out: BTreeMap<String, u32> = ["ready", "silent", "lost"]
        .map(|state| (state.to_owned(), 0))
        .into();
    for name in world.records.nodes.keys() {
        let state = match world.node_state(name) {
            NodeState::Ready => "ready",
            NodeState::Silent => "silent",
            NodeState::Lost => "lost",
        };
        *out.entry(state.to_owned()).or_default() += 1;
    }
    out
}
