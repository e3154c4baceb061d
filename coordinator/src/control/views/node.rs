//! Nodes as the API shows them.

use std::collections::BTreeMap;

use berth_model::api::{DrainView, NodeView};
use berth_model::id::NodeName;
use berth_model::node::{NodeRecord, NodeState};
use berth_model::problem::Problem;
use berth_plan::{WaitReason, Waiting};

use crate::control::Machine;
use crate::control::agent::AgentName;
use crate::control::commands::drains;
use crate::control::world::World;

/// All nodes by name.
pub(crate) fn all(world: &World) -> Vec<NodeView> {
    let nodes = world.records.nodes.values();
    nodes.map(|record| view(world, record)).collect()
}

/// One node. Errors: 404.
pub(crate) fn one(world: &World, name: &NodeName) -> Result<NodeView, Problem> {
    Ok(view(world, find(world, name)?))
}

/// One node's record. Errors: 404 with what may have been meant.
pub(crate) fn find<'a>(world: &'a World, name: &NodeName) -> Result<&'a NodeRecord, Problem> {
    world.records.nodes.get(name).ok_or_else(|| {
        let known: Vec<&str> = world.records.nodes.keys().map(NodeName::as_str).collect();
        let hint = berth_model::manifest::suggest::did_you_mean(name.as_str(), &known);
        Problem::not_found(format!(
            "there is no node {name}; `berth node list` shows all{hint}"
        ))
    })
}

/// How far a node's emptying has come.
pub(crate) fn drain(world: &World, record: &NodeRecord) -> Option<DrainView> {
    let (name, drain) = (&record.name, record.drain.as_ref()?);
    let about = |w: &&Waiting| w.reason.drained_node() == Some(name);
    let waiting = || world.waiting.iter().filter(about).map(|w| &w.reason);
    let mut reasons: Vec<String> = Vec::new();
    if drain.drained.is_none() && world.node_state(name) != NodeState::Ready {
        reasons.push(format!(
            "node {name} is not connected, so what is on it cannot be told to stop: look at its berth-agent"
        ));
    }
    reasons.extend(waiting().map(ToString::to_string));
    let stopping = world.waiting.iter().filter(|w| match &w.reason {
        WaitReason::Draining { id, .. } | WaitReason::Stopping { id } => {
            let instance = world.records.instances.get(id);
            instance.is_some_and(|i| i.place.node() == Some(name))
        }
        _ => false,
    });
    reasons.extend(stopping.map(|w| w.reason.to_string()));
    Some(DrainView {
        started: drain.started,
        total: drain.total,
        moved: drain.total.saturating_sub(drains::left_on(world, name)),
        left: drains::left(world, name, drain),
        force: drain.force,
        stuck: waiting().any(|r| matches!(r, WaitReason::KeptServing { .. })),
        drained: drain.drained,
        reasons,
    })
}

fn view(world: &World, record: &NodeRecord) -> NodeView {
    let agent = AgentName::Node(record.name.clone());
    let live = world.live.agents.get(&agent);
    NodeView {
        name: record.name.clone(),
        state: world.node_state(&record.name),
        cordoned: record.cordoned,
        drain: drain(world, record),
        facts: record.facts.clone(),
        labels: record.all_labels(),
        instances: world
            .records
            .instances
            .index()
            .of(&agent)
            .cloned()
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
