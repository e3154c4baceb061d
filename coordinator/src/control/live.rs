//! What is known of agents and gateways right now; never in the store, begun anew at each start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use berth_model::digest::PackageDigest;
use berth_model::gateway::GatewayReport;
use berth_model::id::{GatewayName, InstanceId, JobName, NodeName};
use berth_model::instance::Intent;
use berth_model::node::NodeStatistics;
use berth_model::relay::Caller;
use berth_model::route::Order;
use berth_model::time::{Monotonic, Span};
use berth_plan::Session;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::agent::AgentName;
use super::pending::Pending;
use super::{ConnectionId, ToAgent};

/// Everything live.
#[derive(Default)]
pub(crate) struct Live {
    last_connection: ConnectionId,
    pub(crate) agents: BTreeMap<AgentName, LiveAgent>,
    /// Whose session a connection was when it was opened.
    pub(crate) connections: BTreeMap<ConnectionId, AgentName>,
    /// Nodes of which the planner is to be told anew.
    pub(crate) touched: BTreeSet<NodeName>,
    /// When time alone may change what holds for an agent.
    pub(crate) sweep: Monotonic,
    pub(crate) gateways: BTreeMap<GatewayName, LiveGateway>,
    /// Gateways that have been gone for long, and since when this process knows that.
    pub(crate) long_gone: BTreeMap<GatewayName, Monotonic>,
    /// Who may come to relays, as agents were told last.
    pub(crate) callers: Arc<Vec<Caller>>,
    /// When an instance was seen to drain first, in this term.
    pub(crate) draining_since: BTreeMap<InstanceId, Monotonic>,
    /// What is to be told anew.
    pub(crate) pending: Pending,
    /// How far the deadlines of drained nodes have been counted.
    pub(crate) drains: Drains,
    /// When the running jobs' deadlines are over.
    pub(crate) job_dues: BTreeMap<JobName, Monotonic>,
    /// What has ended in clusters.
    pub(crate) ends: super::clusters::Ends,
    /// The first published table without an instance, in this term.
    pub(crate) out_since: BTreeMap<InstanceId, Order>,
}

/// How far the deadlines of drained nodes have been counted.
#[derive(Default)]
pub(crate) struct Drains {
    /// When what is left was written down last, in this term.
    pub(crate) noted: BTreeMap<NodeName, Monotonic>,
    /// When all of them were looked at last.
    pub(crate) looked: Monotonic,
}

/// One agent.
#[derive(Default)]
pub(crate) struct LiveAgent {
    pub(crate) session: Option<AgentSession>,
    /// None until it was heard in this term.
    pub(crate) last_heard: Option<Monotonic>,
    /// What it has, once it was heard in this term.
    pub(crate) reported: BTreeSet<InstanceId>,
    /// The agent process that was heard last.
    pub(crate) incarnation: String,
    /// The newest desired set that was made for it in this term.
    pub(crate) sent: Option<Sent>,
    /// Whether its silence was told as an event.
    pub(crate) told_silent: bool,
    /// Whether the planner was told that it is there.
    pub(crate) there: bool,
    /// What it last said of its machine.
    pub(crate) statistics: Option<NodeStatistics>,
    /// The packages that it has, as it last said.
    pub(crate) packages: Arc<BTreeSet<PackageDigest>>,
}

/// A session with an agent.
pub(crate) struct AgentSession {
    pub(crate) connection: ConnectionId,
    pub(crate) outbox: mpsc::Sender<ToAgent>,
    /// Whether it was sent the newest desired set.
    pub(crate) current: bool,
    /// Whether it was told who may come to its relay.
    pub(crate) told_callers: bool,
    /// The newest one it acknowledged, and when.
    pub(crate) acknowledged: Option<(Order, Monotonic)>,
    /// Why it refused the newest one.
    pub(crate) refused: Option<String>,
    /// When it last did.
    pub(crate) refused_at: Option<Monotonic>,
}

/// A desired set that was sent. An instance's specification never changes, so that identity and
/// intent tell two sets apart.
pub(crate) struct Sent {
    pub(crate) order: Order,
    pub(crate) content: Vec<(InstanceId, Intent)>,
}

/// A gateway: its processes, the newest last. There is more than one while one hands over to the next.
#[derive(Default)]
pub(crate) struct LiveGateway {
    pub(crate) processes: Vec<GatewayProcess>,
}

impl LiveGateway {
    /// Whether this is the stream of one of its processes.
    pub(crate) fn holds(&self, connection: ConnectionId) -> bool {
        let mut processes = self.processes.iter();
        processes.any(|p| p.connection == Some(connection))
    }
}

/// One gateway process.
#[derive(Default)]
pub(crate) struct GatewayProcess {
    pub(crate) incarnation: String,
    pub(crate) connection: Option<ConnectionId>,
    pub(crate) last_heard: Option<Monotonic>,
    pub(crate) report: GatewayReport,
    /// Cancelled when it is sent away.
    pub(crate) over: CancellationToken,
}

impl GatewayProcess {
    /// Whether it is there.
    pub(crate) fn session(&self, lease: Span, now: Monotonic) -> Session {
        session(self.connection.is_some(), self.last_heard, lease, now)
    }
}

impl Live {
    /// A number no other connection of this process has.
    pub(crate) fn connection(&mut self) -> ConnectionId {
        self.last_connection += 1;
        self.last_connection
    }

    /// Whose session this is; none if it is over or was replaced.
    pub(crate) fn agent_of(&self, connection: ConnectionId) -> Option<AgentName> {
        let name = self.connections.get(&connection)?;
        let session = self.agents.get(name)?.session.as_ref()?;
        (session.connection == connection).then(|| name.clone())
    }

    /// Each connection that is noted is a session's.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        let mut noted = self.connections.keys();
        let over = noted.find(|connection| self.agent_of(**connection).is_none());
        assert!(over.is_none(), "kept though it is over: {over:?}");
    }

    /// The planner is to be told anew of an agent's node.
    pub(crate) fn touch(&mut self, agent: &AgentName) {
        self.touched.extend(agent.node().cloned());
    }

    /// Which gateway process' stream this is; none if it is over or was replaced.
    pub(crate) fn gateway_of(&mut self, connection: ConnectionId) -> Option<&mut GatewayProcess> {
        self.gateways
            .values_mut()
            .flat_map(|gateway| &mut gateway.processes)
            .find(|process| process.connection == Some(connection))
    }

    /// Whether an agent is there.
    pub(crate) fn agent_session(&self, name: &AgentName, lease: Span, now: Monotonic) -> Session {
        self.agents.get(name).map_or(Session::NotYet, |agent| {
            session(agent.session.is_some(), agent.last_heard, lease, now)
        })
    }
}

/// A connection over which nothing has come for most of the lease (several heartbeats) is dead, even
/// if nobody has noticed yet.
fn session(connected: bool, heard: Option<Monotonic>, lease: Span, now: Monotonic) -> Session {
    match heard {
        None => Session::NotYet,
        Some(at) if connected && now.since(at) < lease.0 * 2 / 3 => Session::Connected,
        Some(at) => Session::Silent(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_connection_counts_as_silent_before_its_lease_is_over() {
        let lease = Span::secs(30);
        let at = |s: u64| Monotonic(s * 1_000);
        assert_eq!(session(true, None, lease, at(0)), Session::NotYet);
        assert_eq!(
            session(true, Some(at(1)), lease, at(20)),
            Session::Connected
        );
        assert_eq!(
            session(true, Some(at(1)), lease, at(21)),
            Session::Silent(at(1))
        );
        assert_eq!(
            session(false, Some(at(1)), lease, at(2)),
            Session::Silent(at(1))
        );
    }
}
