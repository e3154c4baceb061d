//! The working view: what is seen, as changed by the actions planned so far.

use std::sync::Arc;

use berth_model::id::{InstanceId, NodeName, ServiceName};
use berth_model::instance::{Phase, Stage};
use berth_model::place::Place;
use berth_model::time::{Monotonic, Span};

use crate::machines::Claim;
use crate::place::Search;
use crate::state::{Placed, State};
use crate::{Action, Desired, Observed, Plan, Session, WaitReason, Waiting};

pub(crate) struct View<'a> {
    pub(crate) desired: &'a Desired,
    pub(crate) observed: &'a Observed,
    pub(crate) now: Monotonic,
    pub(crate) state: &'a mut State,
    pub(crate) plan: Plan,
    /// The search for places that goes on.
    pub(crate) search: Option<Search>,
    /// Some search has found nothing since this was last set to false.
    pub(crate) hungry: bool,
}

impl<'a> View<'a> {
    pub(crate) fn new(
        desired: &'a Desired,
        observed: &'a Observed,
        state: &'a mut State,
        now: Monotonic,
    ) -> Self {
        Self {
            desired,
            observed,
            now,
            state,
            plan: Plan::default(),
            search: None,
            hungry: false,
        }
    }

    /// Since when a session has been silent, as far as this coordinator can tell; none if it is there.
    pub(crate) fn silent_since(&self, session: Session) -> Option<Monotonic> {
        match session {
            Session::Connected => None,
            Session::Silent(since) => Some(since.max(self.observed.started)),
            Session::NotYet => Some(self.observed.started),
        }
    }

    /// Whether `lease` is over for a session silent since then; if not, the plan wakes when it is.
    pub(crate) fn is_over(&mut self, since: Monotonic, lease: Span) -> bool {
        let end = since.after(lease.0);
        if self.now < end {
            self.wake(end);
        }
        self.now >= end
    }

    pub(crate) fn wake(&mut self, at: Monotonic) {
        self.plan.wake = Some(self.plan.wake.map_or(at, |earlier| earlier.min(at)));
    }

    pub(crate) fn wait(&mut self, service: &ServiceName, reason: WaitReason) {
        self.plan.waiting.push(Waiting {
            service: service.clone(),
            reason,
        });
    }

    pub(crate) fn act(&mut self, action: Action) {
        self.plan.actions.push(action);
    }

    pub(crate) fn drain(&mut self, id: &InstanceId, why: &str) {
        self.set_stage(id, Stage::Draining);
        self.act(Action::Drain {
            id: id.clone(),
            why: why.to_owned(),
        });
    }

    /// One instance, as the plan leaves it so far.
    pub(crate) fn get(&self, id: &InstanceId) -> Option<&Placed> {
        self.state.get(id)
    }

    /// What is on a node, whatever its stage and phase.
    pub(crate) fn on(&self, node: &NodeName) -> impl Iterator<Item = &InstanceId> {
        self.state.on_node.get(node).into_iter().flatten()
    }

    pub(crate) fn set_stage(&mut self, id: &InstanceId, stage: Stage) {
        let all = self.state.instances.get_mut(&id.slot.service);
        if let Some(placed) = all.and_then(|all| all.get_mut(id)) {
            placed.stage = stage;
            self.state.note_stage(id, stage);
            self.touch(id);
        }
    }

    /// A node counts as lost, or as back, from here on.
    pub(crate) fn set_lost(&mut self, node: &NodeName, lost: bool) {
        if let Some(seen) = self.observed.nodes.get(node) {
            if lost {
                self.state.lost.insert(node.clone());
            } else {
                self.state.lost.remove(node);
            }
            self.state.machines.put(node, seen, lost);
            self.state.touched_nodes.insert(node.clone());
        }
    }

    fn touch(&mut self, id: &InstanceId) {
        self.state.touched.insert(id.clone());
        self.state.dirty.insert(id.slot.service.clone());
    }

    /// Removes a record from the view. Its place is free in the next plan, when that is committed.
    pub(crate) fn forget(&mut self, id: &InstanceId) {
        let all = self.state.instances.get_mut(&id.slot.service);
        if let Some(placed) = all.and_then(|all| all.remove(id)) {
            self.state.forgotten.push((id.clone(), placed));
            self.touch(id);
        }
        self.act(Action::Forget { id: id.clone() });
    }

    /// Makes an instance at a place, with what its revision needs reserved for it.
    pub(crate) fn create(&mut self, id: InstanceId, place: Place) {
        let slot = &id.slot;
        let needs = (slot.service.clone(), slot.revision);
        let wanted = self.desired.needs.get(&needs);
        let resources = wanted.map(|needs| needs.resources).unwrap_or_default();
        let gpus = match place.node() {
            Some(node) => self.state.machines.pick_gpus(node, resources.gpus),
            None => Vec::new(),
        };
        let placed = Placed {
            place: place.clone(),
            stage: Stage::Running,
            phase: Phase::Assigned,
            claim: Arc::new(Claim {
                resources,
                gpus: gpus.clone(),
            }),
        };
        let mut rooms = std::collections::BTreeSet::new();
        self.state.put_in(&id, placed, &mut rooms);
        for node in &rooms {
            self.state.machines.index(node);
        }
        self.touch(&id);
        if let Some(search) = &mut self.search {
            search.took(self.state, &id.slot.service, id.slot.revision);
        }
        self.act(Action::Create {
            id,
            place,
            reserved: resources,
            gpus,
        });
    }

    /// The service's instances, in the order of their identities.
    pub(crate) fn of(&self, service: &ServiceName) -> impl Iterator<Item = (&InstanceId, &Placed)> {
        self.state.instances.get(service).into_iter().flatten()
    }
}
