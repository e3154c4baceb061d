//! Who may come to nodes' relays, as their agents are told.

use std::sync::Arc;

use berth_model::id::NodeName;
use berth_model::node::{Condition, NodeRecord, NodeState};
use berth_model::relay::{Caller, Role};

use super::agent::AgentName;
use super::world::World;
use super::{ConnectionId, ToAgent};

/// Every gateway that has shown its key and was not sent away.
fn allowed(world: &World) -> Vec<Caller> {
    let gateways = world.records.gateways.values();
    gateways
        .filter(|gateway| !gateway.revoked && !gateway.key.is_empty())
        .map(|gateway| Caller {
            role: Role::Gateway,
            name: gateway.name.clone(),
            key: gateway.key.clone(),
        })
        .collect()
}

/// The nodes of which it is not known whether their relays go by the newest list.
pub(crate) fn untold(world: &World) -> Vec<NodeName> {
    let relays = world.records.nodes.values();
    let relays = relays.filter(|node| node.facts.relay.is_some());
    let untold = relays.filter(|node| !is_told(world, node));
    untold.map(|node| node.name.clone()).collect()
}

/// Its agent was told, was heard of lately, and has no trouble with its relay.
fn is_told(world: &World, node: &NodeRecord) -> bool {
    let agent = world.live.agents.get(&AgentName::Node(node.name.clone()));
    let session = agent.and_then(|agent| agent.session.as_ref());
    let mut conditions = node.facts.conditions.iter();
    // While settling nobody is told.
    !world.settling
        && session.is_some_and(|session| session.told_callers)
        && world.node_state(&node.name) == NodeState::Ready
        && !conditions.any(|condition| condition.kind == Condition::RELAY)
}

/// Tells the connected nodes that do not know yet. While settling none is told: gateways that came after the
/// backup was made would be cut off. Answers with the sessions that could not take it, which are over.
pub(crate) fn tell(world: &mut World) -> Vec<ConnectionId> {
    if world.settling {
        return Vec::new();
    }
    let now = allowed(world);
    let news = *world.live.callers != now;
    if news {
        world.live.callers = Arc::new(now);
    }
    let live = &mut world.live;
    let strangers = std::mem::take(&mut live.pending.strangers);
    let whom = if news {
        live.agents.keys().cloned().collect()
    } else {
        strangers
    };
    let mut over = Vec::new();
    for name in whom {
        let agent = live.agents.get_mut(&name);
        let (AgentName::Node(_), Some(session)) =
            (&name, agent.and_then(|agent| agent.session.as_mut()))
        else {
            continue;
        };
        if session.told_callers && !news {
            continue;
        }
        session.told_callers = true;
        let word = ToAgent::Callers(Arc::clone(&live.callers));
        if session.outbox.try_send(word).is_err() {
            over.push(session.connection);
        }
    }
    #[cfg(test)]
    for (name, agent) in &live.agents {
        let mut told = agent.session.iter().map(|session| session.told_callers);
        assert!(
            name.node().is_none() || told.all(|told| told),
            "{name} was not told"
        );
    }
    over
}
