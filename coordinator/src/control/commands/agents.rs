//! Agents' sessions.

use std::collections::BTreeSet;
use std::time::Duration;

use berth_model::id::InstanceId;
use berth_model::instance::{InstanceRecord, InstanceStatus, Phase, Stage};
use berth_model::node::Facts;
use berth_model::problem::Problem;
use berth_model::route::Order;
use berth_model::time::Span;

use super::statuses;
use crate::control::agent::AgentName;
use crate::control::events::Happened;
use crate::control::live::AgentSession;
use crate::control::world::World;
use crate::control::{AgentOpened, ConnectionId, Statistics};

/// How often every agent is looked at, at least.
const SWEEP: Span = Span::secs(1);

/// Code of the refusal of nodes that were removed.
pub(crate) const REMOVED: &str = "removed";

/// Whose key this is.
pub(crate) fn by_key(world: &World, key_hash: &str) -> Result<AgentName, Problem> {
    let records = &world.records;
    let node = records.nodes.index().node(key_hash);
    let pod = || records.instances.index().pod(key_hash);
    node.map(|name| AgentName::Node(name.clone()))
        .or_else(|| pod().map(|id| AgentName::Pod(id.clone())))
        .ok_or_else(|| {
            Problem::not_found(
                "no node has this key; if it was removed, join the machine again with a new token",
            )
        })
}

/// A node or a Pod's instance must be in the records to have a session.
pub(crate) fn check_known(world: &World, agent: &AgentName) -> Result<(), Problem> {
    let known = match agent {
        AgentName::Node(node) => world.records.nodes.contains_key(node),
        AgentName::Pod(id) => world.records.instances.contains_key(id),
    };
    if known { Ok(()) } else { Err(removed(agent)) }
}

/// What the agent of a removed node, or of an instance that is not wanted any more, is told.
pub(crate) fn removed(agent: &AgentName) -> Problem {
    let (title, detail) = match agent {
        AgentName::Node(node) => (
            "Node removed",
            format!("node {node} was removed: join the machine again with a new token"),
        ),
        AgentName::Pod(id) => (
            "Instance gone",
            format!("instance {id} is not wanted any more: its Job can be deleted"),
        ),
    };
    Problem::new(403, REMOVED, title, detail)
}

/// Takes a session in place of an earlier one, and everything the agent says with it.
pub(crate) fn admit(world: &mut World, opened: AgentOpened) -> ConnectionId {
    let agent = opened.agent;
    if let AgentName::Node(node) = &agent
        && let Some(record) = world.records.nodes.get(node)
    {
        let mut record = record.clone();
        record.facts = opened.facts;
        let version = record.facts.agent_version.clone();
        world.records.nodes.put(node.clone(), record);
        let live = world.live.agents.get(&agent);
        // A mere reconnect of the same process is no event.
        if live.is_none_or(|n| n.incarnation != opened.incarnation || n.told_silent) {
            world.happened(&Happened::NodeConnected(node, &version));
        }
    }
    let reported: BTreeSet<InstanceId> = opened.instances.iter().map(|s| s.id.clone()).collect();
    if world.restored
        && let AgentName::Node(node) = &agent
    {
        for status in &opened.instances {
            statuses::adopt(world, node, status);
        }
    }
    for status in opened.instances {
        statuses::take(world, &agent, status);
    }
    missing(world, &agent, &reported);
    let connection = world.live.connection();
    let now = world.now;
    world.live.touch(&agent);
    world.live.pending.agents.insert(agent.clone());
    world.live.pending.strangers.insert(agent.clone());
    world.live.connections.insert(connection, agent.clone());
    // Its silence would be noticed a third of its lease from now.
    let silent = now.after(world.settings.node_lease.0 / 3);
    world.live.sweep = world.live.sweep.min(silent);
    let live = world.live.agents.entry(agent).or_default();
    if let Some(before) = &live.session {
        world.live.connections.remove(&before.connection);
    }
    live.session = Some(AgentSession {
        connection,
        outbox: opened.outbox,
        current: false,
        told_callers: false,
        acknowledged: None,
        refused: None,
        refused_at: None,
    });
    live.last_heard = Some(now);
    live.reported = reported;
    live.incarnation = opened.incarnation;
    live.told_silent = false;
    connection
}

/// Records whose instance the agent does not have (its disk was replaced, say): what shall run is to
/// be started anew, what shall stop has stopped.
fn missing(world: &mut World, agent: &AgentName, reported: &BTreeSet<InstanceId>) {
    let records = &world.records.instances;
    let mine = records.index().of(agent);
    let gone = mine.filter(|id| !reported.contains(*id));
    let gone: Vec<InstanceRecord> = gone.filter_map(|id| records.get(id)).cloned().collect();
    for record in gone {
        let phase = match record.stage {
            Stage::Running => Phase::Assigned,
            Stage::Draining | Stage::Stopping | Stage::Lost => Phase::Stopped,
        };
        if record.status.phase != phase {
            let status = InstanceStatus {
                phase,
                address: None,
                pid: None,
                since: world.wall,
                ..record.status
            };
            statuses::take(world, agent, status);
        }
    }
}

/// Takes status changes. Errors: 409 when the session is over.
pub(crate) fn status(
    world: &mut World,
    connection: ConnectionId,
    changed: Vec<InstanceStatus>,
    forgotten: &[InstanceId],
) -> Result<(), Problem> {
    let Some(agent) = heard(world, connection) else {
        return Err(over());
    };
    for status in changed {
        if let Some(live) = world.live.agents.get_mut(&agent) {
            live.reported.insert(status.id.clone());
        }
        statuses::take(world, &agent, status);
    }
    for id in forgotten {
        if let Some(live) = world.live.agents.get_mut(&agent) {
            live.reported.remove(id);
        }
        stopped(world, &agent, id);
    }
    Ok(())
}

/// Takes what an agent says of its machine. Errors: 409 when the session is over; 400 when it is too
/// large to keep.
pub(crate) fn facts(
    world: &mut World,
    connection: ConnectionId,
    facts: Facts,
) -> Result<(), Problem> {
    let Some(agent) = heard(world, connection) else {
        return Err(over());
    };
    super::joining::check_facts(&facts)?;
    // Of what runs in a Pod no machine is kept.
    let AgentName::Node(node) = agent else {
        return Ok(());
    };
    if let Some(record) = world.records.nodes.get(&node)
        && record.facts != facts
    {
        let mut record = record.clone();
        record.facts = facts;
        world.records.nodes.put(node, record);
    }
    Ok(())
}

fn over() -> Problem {
    Problem::conflict("this session is over: another one took its place; connect again")
}

/// What an agent has forgotten on its way out has stopped, even if that word itself was lost.
fn stopped(world: &mut World, agent: &AgentName, id: &InstanceId) {
    let leaving = |r: &&InstanceRecord| {
        agent.has(r)
            && matches!(r.stage, Stage::Stopping | Stage::Lost)
            && r.status.phase != Phase::Stopped
    };
    let Some(record) = world.records.instances.get(id).filter(leaving) else {
        return;
    };
    let status = InstanceStatus {
        phase: Phase::Stopped,
        since: world.wall,
        ..record.status.clone()
    };
    statuses::take(world, agent, status);
}

/// Notes that a session's agent is there. Answers who it is; none if the session is over.
pub(crate) fn heard(world: &mut World, connection: ConnectionId) -> Option<AgentName> {
    let agent = world.live.agent_of(connection)?;
    let now = world.now;
    if let Some(live) = world.live.agents.get_mut(&agent) {
        live.last_heard = Some(now);
        if !live.there {
            world.live.touch(&agent);
        }
    }
    Some(agent)
}

/// Takes what a heartbeat tells of the machine. It stays in memory.
pub(crate) fn statistics(world: &mut World, connection: ConnectionId, said: Statistics) {
    let Some(agent) = heard(world, connection) else {
        return;
    };
    let Some(live) = world.live.agents.get_mut(&agent) else {
        return;
    };
    if said.node.is_some() {
        live.statistics = said.node;
    }
    if let Some(packages) = said.packages {
        live.packages = packages.into();
        world.live.touch(&agent);
    }
}

/// Takes an agent's word on a desired set.
pub(crate) fn acknowledged(
    world: &mut World,
    connection: ConnectionId,
    order: Order,
    refused: Option<String>,
) {
    let Some(agent) = heard(world, connection) else {
        return;
    };
    let now = world.now;
    let session = world
        .live
        .agents
        .get_mut(&agent)
        .and_then(|n| n.session.as_mut());
    let Some(session) = session else { return };
    match refused.filter(|why| !why.is_empty()) {
        None => {
            session.acknowledged = Some((order, now));
            session.refused = None;
            session.refused_at = None;
        }
        Some(why) => {
            let news = session.refused.as_ref() != Some(&why);
            session.refused = Some(why.clone());
            session.refused_at = Some(now);
            if news {
                world.happened(&Happened::NodeRefused(&agent.to_string(), &why));
            }
        }
    }
}

/// A session is over.
pub(crate) fn close(world: &mut World, connection: ConnectionId) -> Option<AgentName> {
    let agent = world.live.agent_of(connection)?;
    world.live.connections.remove(&connection);
    if let Some(live) = world.live.agents.get_mut(&agent) {
        live.session = None;
    }
    world.live.touch(&agent);
    Some(agent)
}

/// Begins the word of an agent that cannot write.
const DISK: &str = "disk: ";

/// How long an agent is left alone that could not write a desired set to its disk.
const AGAIN: Span = Span::secs(5);

/// Ends sessions whose edge has gone without a word, tells of nodes that stay silent, and offers desired sets again for which
/// an agent's disk had no room. Answers whether there is one. It looks at the agents once a second, and when one of them
/// has been silent for long enough to matter.
pub(crate) fn sweep(world: &mut World) -> bool {
    let mut again = false;
    let now = world.now;
    if now < world.live.sweep {
        return again;
    }
    let lease = world.settings.node_lease;
    let mut next = now.after(SWEEP.0);
    let mut silent = Vec::new();
    let mut over = Vec::new();
    for (name, live) in &mut world.live.agents {
        let closed = |s: &mut AgentSession| s.outbox.is_closed();
        if let Some(session) = live.session.take_if(closed) {
            over.push(session.connection);
        }
        for limit in [lease.0 / 3, lease.0 * 2 / 3] {
            if let Some(at) = live.last_heard.filter(|at| now.since(*at) < limit) {
                // The limit may end within a millisecond.
                next = next.min(at.after(limit).max(now.after(Duration::from_millis(1))));
            }
        }
        if let Some(session) = &mut live.session
            && session.current
            && session
                .refused
                .as_ref()
                .is_some_and(|why| why.starts_with(DISK))
            && session
                .refused_at
                .is_some_and(|at| now.since(at) >= AGAIN.0)
        {
            session.current = false;
            world.live.pending.agents.insert(name.clone());
            again = true;
        }
        let quiet = live.last_heard.map(|at| now.since(at));
        let there = live.session.is_some() && quiet.is_some_and(|quiet| quiet < lease.0 * 2 / 3);
        if there != live.there {
            world.live.touched.extend(name.node().cloned());
        }
        if let Some(quiet) = quiet.filter(|q| *q >= lease.0 / 3)
            && !live.told_silent
            && (live.session.is_none() || quiet >= lease.0 * 2 / 3)
        {
            live.told_silent = true;
            silent.extend(name.node().map(|node| (node.clone(), quiet.as_secs())));
        }
    }
    world.live.sweep = next;
    for connection in over {
        world.live.connections.remove(&connection);
    }
    for (name, seconds) in silent {
        world.happened(&Happened::NodeSilent(&name, seconds));
    }
    again
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::{connect, world_with_service};

    #[test]
    fn a_set_that_a_full_disk_refused_is_offered_again_and_no_other_refusal() {
        let mut world = world_with_service();
        let order = Order::default();
        let _words = connect(&mut world, "n1");
        world
            .live
            .connections
            .insert(1, AgentName::Node("n1".parse().unwrap()));
        let current = |world: &mut World| {
            let mut agents = world.live.agents.values_mut();
            let session = agents.find_map(|live| live.session.as_mut()).unwrap();
            std::mem::replace(&mut session.current, true)
        };
        for (why, offered) in [
            ("stale: 1 came after 2", false),
            ("disk: cannot write", true),
        ] {
            current(&mut world);
            acknowledged(&mut world, 1, order, Some(why.to_owned()));
            world.now = world.now.after(AGAIN.0 / 2);
            assert!(!sweep(&mut world), "{why}: too early");
            world.now = world.now.after(AGAIN.0);
            heard(&mut world, 1);
            assert_eq!(sweep(&mut world), offered, "{why}");
            assert_eq!(current(&mut world), !offered, "{why}");
        }
        acknowledged(&mut world, 1, order, None);
        world.now = world.now.after(2 * AGAIN.0);
        assert!(!sweep(&mut world));
    }
}
