//! What happens, typed; and how it reads as an event.

mod of_job;
mod of_node;

use berth_model::event::{Event, Level};
use berth_model::id::{
    ClusterName, FleetName, GatewayName, InstanceId, NodeName, PoolName, ServiceName,
};
use berth_model::instance::InstanceStatus;
use berth_model::place::Place;
use berth_model::service::Revision;
use berth_model::time::Timestamp;

pub(crate) use self::of_job::OfJob;
pub(crate) use self::of_node::OfNode;

/// Newest events that are kept.
pub(crate) const KEPT: usize = 10_000;

/// One thing that happened.
#[derive(Debug)]
pub(crate) enum Happened<'a> {
    ModelPushed(&'a str, String),
    ServiceDeployed(&'a ServiceName, &'a Revision, u32),
    ServiceScaled(&'a ServiceName, u32, u32),
    ServiceAllowsMissing(&'a ServiceName, u32, u32),
    ServiceDeleted(&'a ServiceName),
    ServiceGone(&'a ServiceName),
    PoolChanged(&'a PoolName, String),
    PoolDeleted(&'a PoolName),
    FleetApplied(&'a FleetName, usize),
    RevisionScaled(&'a ServiceName, u32, u32),
    RevisionDropped(&'a ServiceName, u32),
    InstanceCreated(&'a InstanceId, &'a Place),
    InstanceAdopted(&'a InstanceId, &'a Place),
    InstanceHealthy(&'a InstanceStatus),
    InstanceUnhealthy(&'a InstanceStatus),
    InstanceRestarted(&'a InstanceStatus),
    InstanceFailed(&'a InstanceStatus),
    InstanceStopped(&'a InstanceStatus),
    InstanceDraining(&'a InstanceId, &'a str),
    InstanceStopping(&'a InstanceId, bool),
    InstanceLost(&'a InstanceId, &'a Place),
    InstanceForgotten(&'a InstanceId),
    ClusterReached(&'a ClusterName),
    ClusterAway(&'a ClusterName, &'a str),
    NodeJoined(&'a NodeName),
    NodeConnected(&'a NodeName, &'a str),
    NodeSilent(&'a NodeName, u64),
    NodeLost(&'a NodeName, u64),
    NodeReturned(&'a NodeName),
    NodeKeyInUse(&'a str, &'a str),
    NodeRefused(&'a str, &'a str),
    NodeRemoved(&'a NodeName),
    GatewayConnected(&'a GatewayName, &'a str),
    GatewayLost(&'a GatewayName),
    GatewayRevoked(&'a GatewayName),
    GatewayRemoved(&'a GatewayName),
    Job(OfJob<'a>),
    Node(OfNode<'a>),
    TokenCreated(&'a str, Timestamp),
    Restored,
    Settled,
    MassLoss(u32, u32),
    MassLossOver,
}

use Happened as H;

impl Happened<'_> {
    /// As the event of this number and time.
    pub(crate) fn event(&self, seq: u64, time: Timestamp) -> Event {
        let (level, kind) = self.kind();
        Event {
            seq,
            time,
            level,
            kind: kind.to_owned(),
            subject: self.subject(),
            message: self.message(),
        }
    }

    fn kind(&self) -> (Level, &'static str) {
        match self {
            H::ModelPushed(..) => (Level::Info, "model-pushed"),
            H::ServiceDeployed(..) => (Level::Info, "service-deployed"),
            H::ServiceScaled(..) => (Level::Info, "service-scaled"),
            H::ServiceAllowsMissing(..) => (Level::Info, "service-changed"),
            H::ServiceDeleted(..) => (Level::Info, "service-deleted"),
            H::ServiceGone(..) => (Level::Info, "service-gone"),
            H::PoolChanged(..) => (Level::Info, "pool-changed"),
            H::PoolDeleted(..) => (Level::Info, "pool-deleted"),
            H::FleetApplied(..) => (Level::Info, "fleet-applied"),
            H::RevisionScaled(..) => (Level::Info, "revision-scaled"),
            H::RevisionDropped(..) => (Level::Info, "revision-dropped"),
            H::InstanceCreated(..) => (Level::Info, "instance-created"),
            H::InstanceAdopted(..) => (Level::Info, "instance-adopted"),
            H::InstanceHealthy(..) => (Level::Info, "instance-healthy"),
            H::InstanceUnhealthy(..) => (Level::Warning, "instance-unhealthy"),
            H::InstanceRestarted(..) => (Level::Warning, "instance-restarted"),
            H::InstanceFailed(..) => (Level::Error, "instance-failed"),
            H::InstanceStopped(..) => (Level::Info, "instance-stopped"),
            H::InstanceDraining(..) => (Level::Info, "instance-draining"),
            H::InstanceStopping(_, false) => (Level::Info, "instance-stopping"),
            H::InstanceStopping(_, true) => (Level::Warning, "instance-stopping"),
            H::InstanceLost(..) => (Level::Error, "instance-lost"),
            H::InstanceForgotten(..) => (Level::Info, "instance-forgotten"),
            H::ClusterReached(..) => (Level::Info, "cluster-reached"),
            H::ClusterAway(..) => (Level::Error, "cluster-away"),
            H::NodeJoined(..) => (Level::Info, "node-joined"),
            H::NodeConnected(..) => (Level::Info, "node-connected"),
            H::NodeSilent(..) => (Level::Warning, "node-silent"),
            H::NodeLost(..) => (Level::Error, "node-lost"),
            H::NodeReturned(..) => (Level::Info, "node-returned"),
            H::NodeKeyInUse(..) => (Level::Warning, "node-key-in-use"),
            H::NodeRefused(..) => (Level::Error, "node-refused"),
            H::NodeRemoved(..) => (Level::Info, "node-removed"),
            H::GatewayConnected(..) => (Level::Info, "gateway-connected"),
            H::GatewayLost(..) => (Level::Warning, "gateway-lost"),
            H::GatewayRevoked(..) => (Level::Warning, "gateway-revoked"),
            H::GatewayRemoved(..) => (Level::Info, "gateway-removed"),
            H::Job(job) => job.kind(),
            H::Node(node) => node.kind(),
            H::TokenCreated(..) => (Level::Info, "token-created"),
            H::Restored => (Level::Warning, "restored"),
            H::Settled => (Level::Info, "settled"),
            H::MassLoss(..) => (Level::Error, "mass-loss"),
            H::MassLossOver => (Level::Info, "mass-loss-over"),
        }
    }

    fn subject(&self) -> String {
        match self {
            H::ModelPushed(model, _) => format!("model/{model}"),
            H::ServiceDeployed(s, ..)
            | H::ServiceScaled(s, ..)
            | H::ServiceAllowsMissing(s, ..)
            | H::ServiceDeleted(s)
            | H::ServiceGone(s)
            | H::RevisionScaled(s, ..)
            | H::RevisionDropped(s, _) => format!("service/{s}"),
            H::InstanceCreated(id, _)
            | H::InstanceAdopted(id, _)
            | H::InstanceDraining(id, _)
            | H::InstanceStopping(id, _)
            | H::InstanceLost(id, _)
            | H::InstanceForgotten(id) => format!("instance/{id}"),
            H::InstanceHealthy(s)
            | H::InstanceUnhealthy(s)
            | H::InstanceRestarted(s)
            | H::InstanceFailed(s)
            | H::InstanceStopped(s) => format!("instance/{}", s.id),
            H::NodeJoined(n)
            | H::NodeConnected(n, _)
            | H::NodeSilent(n, _)
            | H::NodeLost(n, _)
            | H::NodeReturned(n)
            | H::NodeRemoved(n) => format!("node/{n}"),
            H::NodeKeyInUse(agent, _) | H::NodeRefused(agent, _) => format!("node/{agent}"),
            H::PoolChanged(p, _) | H::PoolDeleted(p) => format!("pool/{p}"),
            H::FleetApplied(f, _) => format!("fleet/{f}"),
            H::ClusterReached(c) | H::ClusterAway(c, _) => format!("cluster/{c}"),
            H::GatewayConnected(g, _)
            | H::GatewayLost(g)
            | H::GatewayRevoked(g)
            | H::GatewayRemoved(g) => format!("gateway/{g}"),
            H::Job(job) => job.subject(),
            H::Node(node) => node.subject(),
            H::TokenCreated(id, _) => format!("token/{id}"),
            H::Restored | H::Settled | H::MassLoss(..) | H::MassLossOver => "coordinator".into(),
        }
    }

    fn message(&self) -> String {
        match self {
            H::ModelPushed(..)
            | H::ServiceDeployed(..)
            | H::ServiceScaled(..)
            | H::ServiceAllowsMissing(..)
            | H::ServiceDeleted(..)
            | H::ServiceGone(..)
            | H::RevisionScaled(..)
            | H::RevisionDropped(..) => self.of_service(),
            H::PoolChanged(..)
            | H::PoolDeleted(..)
            | H::FleetApplied(..)
            | H::ClusterReached(..)
            | H::ClusterAway(..)
            | H::NodeJoined(..)
            | H::NodeConnected(..)
            | H::NodeSilent(..)
            | H::NodeLost(..)
            | H::NodeReturned(..)
            | H::NodeKeyInUse(..)
            | H::NodeRefused(..)
            | H::NodeRemoved(..)
            | H::GatewayConnected(..)
            | H::GatewayLost(..)
            | H::GatewayRevoked(..)
            | H::GatewayRemoved(..)
            | H::TokenCreated(..)
            | H::Restored
            | H::Settled
            | H::MassLoss(..)
            | H::MassLossOver => self.of_fleet(),
            H::Job(job) => job.message(),
            H::Node(node) => node.message(),
            _ => self.of_instance(),
        }
    }

    fn of_service(&self) -> String {
        match self {
            H::ModelPushed(model, version) => format!("{model} {version} was pushed"),
            H::ServiceDeployed(s, r, replicas) => format!(
                "{s} revision {}: {} {} (#{}), {}",
                r.number,
                r.model,
                r.version,
                r.serial,
                count(*replicas)
            ),
            H::ServiceScaled(s, from, to) => format!("{s} scaled from {from} to {}", count(*to)),
            H::ServiceAllowsMissing(s, from, to) => {
                format!("{s}: max_unavailable is {to} now ({from} before)")
            }
            H::ServiceDeleted(s) => format!("{s} is being deleted: its instances drain and stop"),
            H::ServiceGone(s) => format!("{s} is gone: its last instance has stopped"),
            H::RevisionScaled(s, r, to) => format!("{s} revision {r} shall have {}", count(*to)),
            H::RevisionDropped(s, r) => format!("{s} revision {r} has no instances left"),
            _ => String::new(),
        }
    }

    fn of_instance(&self) -> String {
        match self {
            H::InstanceCreated(id, node) => format!("{id} is placed on {node}"),
            H::InstanceAdopted(id, node) => {
                format!("{id} runs on {node} since before the restore and was adopted")
            }
            H::InstanceHealthy(s) => format!("{} is healthy{}", s.id, at(s)),
            H::InstanceUnhealthy(s) => format!("{} is unhealthy{}", s.id, why(s)),
            H::InstanceRestarted(s) => {
                format!("{} was restarted (restart {}){}", s.id, s.restarts, why(s))
            }
            H::InstanceFailed(s) => format!("{} failed and is to be restarted{}", s.id, why(s)),
            H::InstanceStopped(s) => format!("{} has stopped{}", s.id, why(s)),
            H::InstanceDraining(id, cause) => format!("{id} drains: {cause}"),
            H::InstanceStopping(id, false) => {
                format!("{id} is told to stop: every gateway has let go of it")
            }
            H::InstanceStopping(id, true) => {
                format!("{id} is told to stop: the drain deadline is over, requests may be cut off")
            }
            H::InstanceLost(id, node) => {
                format!(
                    "{id} is given up: its node {node} is lost; a replacement has a new identity"
                )
            }
            H::InstanceForgotten(id) => format!("{id} is gone for good"),
            _ => String::new(),
        }
    }

    fn of_fleet(&self) -> String {
        match self {
            H::PoolChanged(p, labels) => {
                format!("pool {p} is what has {labels}; what runs stays where it is")
            }
            H::PoolDeleted(p) => format!("pool {p} is gone"),
            H::FleetApplied(f, 1) => format!("the fleet files {f} were applied: 1 change"),
            H::FleetApplied(f, n) => format!("the fleet files {f} were applied: {n} changes"),
            H::ClusterReached(c) => format!("cluster {c} can be used"),
            H::ClusterAway(c, why) => {
                format!("cluster {c} cannot be used, and what runs there is left as it is: {why}")
            }
            H::NodeJoined(n) => format!("{n} joined"),
            H::NodeConnected(n, version) => format!("{n} connected (agent {version})"),
            H::NodeSilent(n, s) => {
                format!("{n} has been silent for {s} s; nothing is replaced yet")
            }
            H::NodeLost(n, s) => format!(
                "{n} was silent for {s} s, longer than its lease: its instances are replaced elsewhere"
            ),
            H::NodeReturned(n) => format!("{n} is back"),
            H::NodeKeyInUse(n, host) => format!(
                "a second machine ({host}) came with the key of {n} while the first is connected, and \
                 was refused: give it a data folder of its own and join it again"
            ),
            H::NodeRefused(n, why) => format!("{n} refused its desired set: {why}"),
            H::NodeRemoved(n) => {
                format!(
                    "{n} was removed: its key is no longer taken; join it anew to bring it back"
                )
            }
            H::GatewayConnected(g, url) => format!("gateway {g} connected ({url})"),
            H::GatewayLost(g) => {
                format!(
                    "gateway {g} was silent for its lease: stopping does not wait for it any more"
                )
            }
            H::GatewayRevoked(g) => {
                format!("gateway {g} was revoked: it follows no table, and relays turn it away")
            }
            H::GatewayRemoved(g) => format!("gateway {g} was removed; it may come again"),
            H::TokenCreated(id, until) => {
                format!("join token {id} was made, good until {}", until.rfc3339())
            }
            H::Restored => "the store was restored from a backup: nothing is changed until the \
                            nodes have reported what runs"
                .into(),
            H::Settled => "the nodes have reported after the restore; planning goes on".into(),
            H::MassLoss(silent, nodes) => format!(
                "{silent} of {nodes} nodes fell silent together: nothing is replaced, look at the network"
            ),
            H::MassLossOver => "enough nodes are back; replacing goes on".into(),
            _ => String::new(),
        }
    }
}

fn count(n: u32) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{n} instance{s}")
}

fn at(status: &InstanceStatus) -> String {
    status
        .address
        .map(|a| format!(" at {a}"))
        .unwrap_or_default()
}

fn why(status: &InstanceStatus) -> String {
    let reason = status.reason.as_ref().map(|r| format!(": {r}"));
    let last = status
        .last_lines
        .last()
        .map(|line| format!("; last line: {line:?}"));
    reason.unwrap_or_default() + &last.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_model::instance::{Phase, Reason};

    #[test]
    fn an_event_says_what_and_why() {
        let status = InstanceStatus {
            id: "web.1.0.1".parse().unwrap(),
            phase: Phase::Backoff,
            start: 2,
            restarts: 1,
            address: None,
            reason: Some(Reason::Exited {
                process: "module".into(),
                code: 3,
            }),
            last_lines: vec!["a".into(), "no model file".into()],
            pid: None,
            since: Timestamp(0),
            digest: None,
            output: None,
            gpus: Vec::new(),
        };
        let event = Happened::InstanceFailed(&status).event(7, Timestamp(5));
        assert_eq!((event.seq, event.level), (7, Level::Error));
        assert_eq!(event.kind, "instance-failed");
        assert_eq!(event.subject, "instance/web.1.0.1");
        assert_eq!(
            event.message,
            "web.1.0.1 failed and is to be restarted: module exited with code 3; last line: \"no model file\""
        );
        let node: NodeName = "n1".parse().unwrap();
        let event = Happened::NodeReturned(&node).event(1, Timestamp(0));
        assert_eq!(
            (event.subject.as_str(), event.message.as_str()),
            ("node/n1", "n1 is back")
        );
    }
}
