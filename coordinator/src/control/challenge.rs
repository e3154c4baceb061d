//! Two machines with one key: the first is asked whether it is still there before a second gets in.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_model::problem::Problem;
use berth_model::time::Monotonic;
use tokio::sync::mpsc::error::TrySendError;

use super::agent::AgentName;
use super::commands::{agents, joining};
use super::events::Happened;
use super::world::World;
use super::{AgentOpened, ConnectionId, Reply, ToAgent};

/// How long the first has to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Sessions that wait for the answer of an earlier one.
#[derive(Default)]
pub(crate) struct Challenges {
    open: BTreeMap<AgentName, Challenge>,
}

struct Challenge {
    /// The session that was there first.
    first: ConnectionId,
    /// Whether it was heard since.
    heard: bool,
    until: Monotonic,
    second: Second,
}

/// A session that wants in.
pub(crate) struct Second {
    pub(crate) opened: AgentOpened,
    pub(crate) reply: Reply<ConnectionId>,
}

impl Challenges {
    /// Answers with the session if it may begin at once. Otherwise its reply comes later.
    pub(crate) fn consider(&mut self, world: &World, second: Second) -> Option<Second> {
        let node = second.opened.agent.clone();
        let facts = &second.opened.facts;
        let known = agents::check_known(world, &node);
        if let Err(problem) = known.and_then(|()| joining::check_facts(facts)) {
            // A closed reply: whoever asked has gone.
            let _ = second.reply.send(Err(problem));
            return None;
        }
        let first = world.live.agents.get(&node).and_then(|live| {
            let session = live.session.as_ref()?;
            let same_process = live.incarnation == second.opened.incarnation;
            (!same_process).then_some(session)
        });
        let Some(first) = first else {
            // A challenger of an older attempt has nothing to wait for any more.
            self.open.remove(&node);
            return Some(second);
        };
        if matches!(
            first.outbox.try_send(ToAgent::Ping(first.connection)),
            Err(TrySendError::Closed(_))
        ) {
            self.open.remove(&node);
            return Some(second);
        }
        if let Some(other) = self.open.get(&node)
            && other.second.opened.incarnation != second.opened.incarnation
            && !other.second.reply.is_closed()
        {
            let _ = second.reply.send(Err(Problem::unavailable(format!(
                "another session of {node} is just being checked: try again in a few seconds"
            ))));
            return None;
        }
        let challenge = Challenge {
            first: first.connection,
            heard: false,
            until: world.now.after(PATIENCE),
            second,
        };
        self.open.insert(node, challenge);
        None
    }

    /// The first one was heard.
    pub(crate) fn heard(&mut self, connection: ConnectionId) {
        for challenge in self.open.values_mut() {
            challenge.heard |= challenge.first == connection;
        }
    }

    /// Decides what is due: a first one that has closed lets the second in at once; at the end of its
    /// time a first one that was heard keeps its place. (Not sooner: what was heard may have been on
    /// its way when the first one died.)
    pub(crate) fn decide(&mut self, world: &mut World) -> Vec<Second> {
        let due: Vec<AgentName> = self
            .open
            .iter()
            .filter(|(node, c)| world.now >= c.until || first_of(world, node) != Some(c.first))
            .map(|(node, _)| node.clone())
            .collect();
        let mut admitted = Vec::new();
        for node in due {
            let Some(challenge) = self.open.remove(&node) else {
                continue;
            };
            let there = first_of(world, &node) == Some(challenge.first);
            if there && challenge.heard {
                refuse(world, &node, challenge.second);
            } else {
                dismiss(world, &node);
                admitted.push(challenge.second);
            }
        }
        admitted
    }

    /// When the next decision is due.
    pub(crate) fn wake(&self) -> Option<Monotonic> {
        self.open.values().map(|c| c.until).min()
    }
}

fn first_of(world: &World, node: &AgentName) -> Option<ConnectionId> {
    let live = world.live.agents.get(node)?;
    live.session.as_ref().map(|s| s.connection)
}

fn refuse(world: &mut World, node: &AgentName, second: Second) {
    let host = &second.opened.facts.hostname;
    world.happened(&Happened::NodeKeyInUse(&node.to_string(), host));
    let _ = second.reply.send(Err(Problem::new(
        409,
        "key-in-use",
        "Key in use",
        format!(
            "another machine is connected as {node} with the same key: give this one a data folder \
             of its own and join it with a new token"
        ),
    )));
}

fn dismiss(world: &mut World, node: &AgentName) {
    let session = world
        .live
        .agents
        .get_mut(node)
        .and_then(|n| n.session.take());
    if let Some(session) = session {
        world.live.connections.remove(&session.connection);
        // A full outbox cannot be told; dropping it ends the session as well.
        let _ = session.outbox.try_send(ToAgent::Refuse(
            "replaced".to_owned(),
            "this session did not answer and another one of the same agent took its place"
                .to_owned(),
        ));
    }
}
