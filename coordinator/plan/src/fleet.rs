//! A small fleet for tests: carries plans out as control, agents and gateways would.

use std::cell::RefCell;
use std::collections::BTreeMap;

use berth_model::id::{ClusterName, GatewayName, InstanceId, NodeName, ServiceName};
use berth_model::instance::{Phase, Stage};
use berth_model::node::RuntimeKind;
use berth_model::resources::Resources;
use berth_model::route::Order;
use berth_model::service::{Revision, ServiceRecord};
use berth_model::time::{Monotonic, Timestamp};

use crate::{
    Action, ClusterSeen, Desired, DrainSeen, GatewaySeen, InstanceSeen, Needs, NodeSeen, Observed,
    Plan, Planner, Session, plan,
};

#[derive(Debug, Clone, Default)]
pub(crate) struct Fleet {
    pub(crate) desired: Desired,
    pub(crate) observed: Observed,
    pub(crate) now: Monotonic,
    /// Revisions whose modules never get healthy.
    pub(crate) broken: Vec<(ServiceName, u32)>,
    /// Gateways that do not follow.
    pub(crate) deaf: Vec<GatewayName>,
    generation: u64,
    /// What it remembers must make no difference.
    planner: RefCell<Planner>,
}

pub(crate) fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

pub(crate) fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

impl Fleet {
    /// `n` connected exclusive nodes `n0`, `n1`, … and one gateway `g`.
    pub(crate) fn exclusive(n: usize) -> Self {
        let mut fleet = Self {
            now: Monotonic(1_000_000),
            ..Self::default()
        };
        fleet.observed.started = fleet.now;
        for i in 0..n {
            fleet.add_node(&format!("n{i}"), true, Resources::default());
        }
        fleet.add_gateway("g");
        fleet
    }

    pub(crate) fn add_node(&mut self, name: &str, exclusive: bool, capacity: Resources) {
        let seen = NodeSeen {
            exclusive,
            capacity,
            runtimes: vec![RuntimeKind::Process],
            session: Session::Connected,
            ..NodeSeen::default()
        };
        self.observed.nodes.insert(node(name), seen);
    }

    pub(crate) fn add_cluster(&mut self, name: &str) {
        let name = ClusterName::new(name).unwrap();
        self.observed.clusters.insert(name, ClusterSeen::default());
    }

    pub(crate) fn add_gateway(&mut self, name: &str) {
        let seen = GatewaySeen {
            session: Session::Connected,
            ..GatewaySeen::default()
        };
        self.observed
            .gateways
            .insert(GatewayName::new(name).unwrap(), seen);
    }

    /// A new revision, as `berth deploy` makes one.
    pub(crate) fn deploy(&mut self, name: &str, replicas: u32, needs: Needs) -> u32 {
        let record = self
            .desired
            .services
            .entry(service(name))
            .or_insert(ServiceRecord {
                name: service(name),
                revisions: BTreeMap::new(),
                replicas,
                deleting: false,
                max_unavailable: 1,
                fleet: None,
                created: Timestamp(0),
                updated: Timestamp(0),
            });
        record.replicas = replicas;
        let number = record.revisions.keys().next_back().map_or(1, |n| n + 1);
        let revision = Revision {
            number,
            model: berth_model::id::ModelName::new(name).unwrap(),
            serial: u64::from(number),
            version: semver::Version::new(1, 0, u64::from(number)),
            digest: berth_model::digest::PackageDigest::from_bytes([0; 32]),
            runtime: RuntimeKind::Process,
            node_labels: BTreeMap::new(),
            pool: None,
            spread: None,
            env: BTreeMap::new(),
            replicas: if record.revisions.is_empty() {
                replicas
            } else {
                0
            },
            created: Timestamp(0),
        };
        record.revisions.insert(number, revision);
        self.desired.needs.insert((service(name), number), needs);
        number
    }

    /// The plan made from nothing, after a look at whether the planner that remembers says the same.
    pub(crate) fn plan(&self) -> Plan {
        let fresh = plan(&self.desired, &self.observed, self.now);
        let mut planner = self.planner.borrow_mut();
        planner.update(&self.desired, &self.observed);
        assert_eq!(planner.plan(self.now), fresh, "what is remembered matters");
        fresh
    }

    /// Commits a plan's actions as control does.
    pub(crate) fn apply(&mut self, plan: &Plan) {
        for action in &plan.actions {
            self.apply_one(action);
        }
    }

    fn apply_one(&mut self, action: &Action) {
        self.generation += 1;
        match action {
            Action::SetReplicas {
                service,
                revision,
                replicas,
            } => {
                let record = self.desired.services.get_mut(service).unwrap();
                record.revisions.get_mut(revision).unwrap().replicas = *replicas;
            }
            Action::DropRevision { service, revision } => {
                self.desired
                    .services
                    .get_mut(service)
                    .unwrap()
                    .revisions
                    .remove(revision);
            }
            Action::DropService { service } => {
                self.desired.services.remove(service);
            }
            Action::Create {
                id,
                place,
                reserved,
                gpus,
            } => {
                let attempt = self.observed.attempts.entry(id.slot.clone()).or_default();
                assert!(id.attempt > *attempt, "{id} was used before");
                *attempt = id.attempt;
                let seen = InstanceSeen {
                    place: place.clone(),
                    reserved: *reserved,
                    gpus: gpus.clone(),
                    stage: Stage::Running,
                    phase: Phase::Assigned,
                    reported: true,
                    draining_since: None,
                    out_since: None,
                    ended: None,
                };
                assert!(self.observed.instances.insert(id.clone(), seen).is_none());
            }
            Action::Drain { id, .. } => {
                let order = self.order();
                let now = self.now;
                let seen = self.observed.instances.get_mut(id).unwrap();
                seen.stage = Stage::Draining;
                seen.draining_since = Some(now);
                seen.out_since = Some(order);
            }
            Action::Stop { id, .. } | Action::EndTask { id, .. } => {
                self.set_stage(id, Stage::Stopping);
            }
            // Jobs' records are kept beside the fleet.
            Action::PlaceJob { .. } | Action::ExpireJob { .. } | Action::DropJob { .. } => {}
            Action::LoseInstance { id } => self.set_stage(id, Stage::Lost),
            Action::Forget { id } => {
                self.observed.instances.remove(id).unwrap();
            }
            Action::LoseNode { node } => self.observed.nodes.get_mut(node).unwrap().lost = true,
            Action::ReturnNode { node } => self.observed.nodes.get_mut(node).unwrap().lost = false,
            Action::NodeDrained { node } => {
                let left = self.observed.instances.values();
                let left = left.filter(|seen| seen.place.node() == Some(node)).count();
                assert_eq!(left, 0, "{node} is said to be empty");
                let drain = &mut self.observed.nodes.get_mut(node).unwrap().drain;
                assert!(!std::mem::replace(
                    &mut drain.as_mut().unwrap().drained,
                    true
                ));
            }
            Action::ForgetGateway { gateway } => {
                self.observed.gateways.remove(gateway).unwrap();
            }
        }
    }

    fn set_stage(&mut self, id: &InstanceId, stage: Stage) {
        let seen = self.observed.instances.get_mut(id).unwrap();
        assert!(seen.stage < stage, "{id}: stages only move forward");
        seen.stage = stage;
    }

    fn order(&self) -> Order {
        Order {
            epoch: 1,
            term: 1,
            generation: self.generation,
        }
    }

    /// One step of every agent and gateway that is there.
    pub(crate) fn advance(&mut self) {
        let order = self.order();
        for (name, gateway) in &mut self.observed.gateways {
            if gateway.session == Session::Connected && !self.deaf.contains(name) {
                gateway.acknowledged = order;
            }
        }
        for (id, seen) in &mut self.observed.instances {
            let away = |name| {
                let node = self.observed.nodes.get(name);
                node.is_none_or(|n| n.session != Session::Connected)
            };
            if seen.place.node().is_some_and(away) {
                continue;
            }
            let broken = self
                .broken
                .contains(&(id.slot.service.clone(), id.slot.revision));
            seen.phase = match (seen.stage, seen.phase) {
                (Stage::Stopping | Stage::Lost, _) => Phase::Stopped,
                (_, Phase::Assigned) => Phase::Starting,
                (_, Phase::Starting) if broken => Phase::Backoff,
                (_, Phase::Starting) => Phase::Healthy,
                (_, other) => other,
            };
        }
    }

    /// Plans, applies and advances until a plan is empty and nothing moves; checks `each` plan.
    pub(crate) fn converge(&mut self, mut each: impl FnMut(&Fleet, &Plan)) {
        for _ in 0..200 {
            let plan = self.plan();
            each(self, &plan);
            self.apply(&plan);
            let before = self.observed.clone();
            self.advance();
            if plan.actions.is_empty() && before == self.observed {
                return;
            }
        }
        panic!("does not converge: {:#?}", self.plan());
    }

    pub(crate) fn healthy(&self, name: &str) -> usize {
        self.observed
            .instances
            .iter()
            .filter(|(id, seen)| {
                id.slot.service.as_str() == name
                    && seen.stage == Stage::Running
                    && seen.phase == Phase::Healthy
            })
            .count()
    }

    pub(crate) fn silence(&mut self, name: &str) {
        let now = self.now;
        self.observed.nodes.get_mut(&node(name)).unwrap().session = Session::Silent(now);
    }

    /// As `berth node drain` does.
    pub(crate) fn drain(&mut self, name: &str, deadline_ms: u64, force: bool) {
        let due = Monotonic(self.now.0 + deadline_ms);
        let seen = self.observed.nodes.get_mut(&node(name)).unwrap();
        seen.cordoned = true;
        seen.drain = Some(DrainSeen {
            due,
            force,
            drained: false,
        });
    }

    /// As `berth node uncordon` does.
    pub(crate) fn uncordon(&mut self, name: &str) {
        let seen = self.observed.nodes.get_mut(&node(name)).unwrap();
        (seen.cordoned, seen.drain) = (false, None);
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        self.now = Monotonic(self.now.0 + ms);
    }
}
