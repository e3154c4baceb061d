//! What is derived from what is seen, kept from plan to plan.
//!
//! A plan changes it as if its actions were done already. What it touched is made to agree with what is seen
//! again before the next plan, by [`State::refresh_instance`] and [`State::refresh_node`]: if the actions were
//! committed, that finds nothing to change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use berth_model::id::{InstanceId, NodeName, ServiceName};
use berth_model::instance::{Phase, Stage};
use berth_model::place::Place;

use crate::machines::{Claim, Machines};
use crate::{InstanceSeen, NodeSeen, Session};

/// An instance in the working view.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Placed {
    pub(crate) place: Place,
    pub(crate) stage: Stage,
    pub(crate) phase: Phase,
    /// What it holds on its node until it has stopped.
    pub(crate) claim: Arc<Claim>,
}

impl Placed {
    fn of(seen: &InstanceSeen) -> Self {
        Self {
            place: seen.place.clone(),
            stage: seen.stage,
            phase: seen.phase,
            claim: Arc::new(Claim {
                resources: seen.reserved,
                gpus: seen.gpus.clone(),
            }),
        }
    }

    /// Wanted and counted for its revision.
    pub(crate) fn is_live(&self) -> bool {
        self.stage == Stage::Running
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.is_live() && self.phase == Phase::Healthy
    }

    /// The node on which it holds a place: everything that has not stopped does, whatever its stage.
    fn holds(&self) -> Option<&NodeName> {
        self.place.node().filter(|_| self.phase != Phase::Stopped)
    }
}

/// The services' instances, the nodes, and what is to be looked at.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    pub(crate) instances: BTreeMap<ServiceName, BTreeMap<InstanceId, Placed>>,
    pub(crate) on_node: BTreeMap<NodeName, BTreeSet<InstanceId>>,
    pub(crate) in_clusters: BTreeSet<InstanceId>,
    /// Everything past the stage running.
    pub(crate) leaving: BTreeSet<InstanceId>,
    pub(crate) machines: Machines,
    /// Nodes whose agent is not there, or that are declared lost.
    pub(crate) away: BTreeSet<NodeName>,
    /// Nodes that are declared lost.
    pub(crate) lost: BTreeSet<NodeName>,
    /// Nodes that are drained.
    pub(crate) draining: BTreeSet<NodeName>,
    /// Nodes that have instances and are not there.
    pub(crate) adrift: BTreeSet<NodeName>,
    /// Services and jobs that are to be planned anew.
    pub(crate) dirty: BTreeSet<ServiceName>,
    /// What may differ from what is seen.
    pub(crate) touched: BTreeSet<InstanceId>,
    pub(crate) touched_nodes: BTreeSet<NodeName>,
    /// What the last plan took out, as it was.
    pub(crate) forgotten: Vec<(InstanceId, Placed)>,
}

impl State {
    pub(crate) fn get(&self, id: &InstanceId) -> Option<&Placed> {
        self.instances.get(&id.slot.service)?.get(id)
    }

    /// Takes back what the last plan left out. It still holds its place.
    pub(crate) fn remember(&mut self) {
        for (id, placed) in std::mem::take(&mut self.forgotten) {
            let service = id.slot.service.clone();
            let all = self.instances.entry(service).or_default();
            all.insert(id, placed);
        }
    }

    /// Makes an instance agree with what is seen. The nodes whose room changed are added to `rooms`.
    pub(crate) fn refresh_instance(
        &mut self,
        id: &InstanceId,
        seen: Option<&InstanceSeen>,
        rooms: &mut BTreeSet<NodeName>,
    ) {
        let new = seen.map(Placed::of);
        let all = self.instances.get_mut(&id.slot.service);
        let old = all.and_then(|all| all.get_mut(id));
        if old.as_deref() == new.as_ref() {
            return;
        }
        self.dirty.insert(id.slot.service.clone());
        if let (Some(old), Some(new)) = (old, &new)
            && old.place == new.place
            && old.holds() == new.holds()
            && old.claim == new.claim
        {
            *old = new.clone();
            self.note_stage(id, new.stage);
            return;
        }
        self.take_out(id, rooms);
        if let Some(new) = new {
            self.put_in(id, new, rooms);
        }
    }

    fn take_out(&mut self, id: &InstanceId, rooms: &mut BTreeSet<NodeName>) {
        let Some(all) = self.instances.get_mut(&id.slot.service) else {
            return;
        };
        let Some(old) = all.remove(id) else { return };
        if all.is_empty() {
            self.instances.remove(&id.slot.service);
        }
        self.leaving.remove(id);
        self.in_clusters.remove(id);
        let Some(node) = old.place.node() else { return };
        if let Some(there) = self.on_node.get_mut(node) {
            there.remove(id);
            if there.is_empty() {
                self.on_node.remove(node);
                self.adrift.remove(node);
            }
        }
        if old.holds().is_some() {
            self.machines.release(node, &old.claim);
            rooms.insert(node.clone());
        }
    }

    /// Adds an instance.
    pub(crate) fn put_in(
        &mut self,
        id: &InstanceId,
        placed: Placed,
        rooms: &mut BTreeSet<NodeName>,
    ) {
        self.note_stage(id, placed.stage);
        match &placed.place {
            Place::Cluster(_) => drop(self.in_clusters.insert(id.clone())),
            Place::Node(node) => {
                let there = self.on_node.entry(node.clone()).or_default();
                there.insert(id.clone());
                if placed.holds().is_some() {
                    self.machines.hold(node, &placed.claim);
                    rooms.insert(node.clone());
                }
                if !self.machines.contains(node) {
                    self.adrift.insert(node.clone());
                }
            }
        }
        let service = id.slot.service.clone();
        let all = self.instances.entry(service).or_default();
        all.insert(id.clone(), placed);
    }

    pub(crate) fn note_stage(&mut self, id: &InstanceId, stage: Stage) {
        if stage == Stage::Running {
            self.leaving.remove(id);
        } else {
            self.leaving.insert(id.clone());
        }
    }

    /// Makes a node agree with what is seen.
    pub(crate) fn refresh_node(&mut self, name: &NodeName, seen: Option<&NodeSeen>) {
        let Some(seen) = seen else {
            self.machines.remove(name);
            self.away.remove(name);
            self.lost.remove(name);
            self.draining.remove(name);
            if self.on_node.contains_key(name) {
                self.adrift.insert(name.clone());
            }
            return;
        };
        set(&mut self.lost, name, seen.lost);
        set(&mut self.draining, name, seen.drain.is_some());
        let away = seen.lost || seen.session != Session::Connected;
        set(&mut self.away, name, away);
        self.adrift.remove(name);
        if self.machines.put(name, seen, seen.lost) {
            let here = self.on_node.get(name).into_iter().flatten();
            for id in here {
                let placed = self.instances.get(&id.slot.service);
                if let Some(placed) = placed.and_then(|all| all.get(id))
                    && placed.holds().is_some()
                {
                    self.machines.hold(name, &placed.claim);
                }
            }
            self.machines.index(name);
        }
    }
}

fn set(names: &mut BTreeSet<NodeName>, name: &NodeName, is: bool) {
    if is {
        names.insert(name.clone());
    } else {
        names.remove(name);
    }
}
