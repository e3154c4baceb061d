//! The working view: what is seen, as changed by the actions planned so far.

use std::collections::BTreeMap;

use berth_model::id::{InstanceId, NodeName, ServiceName};
use berth_model::instance::{Phase, Stage};
use berth_model::place::Place;
use berth_model::resources::Resources;
use berth_model::time::{Monotonic, Span};

use crate::{Action, Desired, Observed, Plan, Session, WaitReason, Waiting};

/// An instance in the working view.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) place: Place,
    pub(crate) stage: Stage,
    pub(crate) phase: Phase,
}

impl Placed {
    /// Wanted and counted for its revision.
    pub(crate) fn is_live(&self) -> bool {
        self.stage == Stage::Running
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.is_live() && self.phase == Phase::Healthy
    }
}

/// What a node still has to give.
#[derive(Debug, Clone, Default)]
pub(crate) struct Room {
    /// Instances that hold a place: everything that has not stopped, whatever its stage.
    pub(crate) held: u32,
    pub(crate) free: Resources,
    /// Instances by service, for spreading.
    pub(crate) by_service: BTreeMap<ServiceName, u32>,
}

pub(crate) struct View<'a> {
    pub(crate) desired: &'a Desired,
    pub(crate) observed: &'a Observed,
    pub(crate) now: Monotonic,
    pub(crate) instances: BTreeMap<ServiceName, BTreeMap<InstanceId, Placed>>,
    pub(crate) lost: BTreeMap<NodeName, bool>,
    pub(crate) rooms: BTreeMap<NodeName, Room>,
    pub(crate) plan: Plan,
}

impl<'a> View<'a> {
    pub(crate) fn new(desired: &'a Desired, observed: &'a Observed, now: Monotonic) -> Self {
        let mut rooms: BTreeMap<NodeName, Room> = observed
            .nodes
            .iter()
            .map(|(name, node)| {
                (
                    name.clone(),
                    Room {
                        free: node.capacity,
                        ..Room::default()
                    },
                )
            })
            .collect();
        let mut instances: BTreeMap<ServiceName, BTreeMap<InstanceId, Placed>> = BTreeMap::new();
        for (id, seen) in &observed.instances {
            if seen.phase != Phase::Stopped
                && let Some(room) = seen.place.node().and_then(|node| rooms.get_mut(node))
            {
                hold(desired, room, id);
            }
            let placed = Placed {
                place: seen.place.clone(),
                stage: seen.stage,
                phase: seen.phase,
            };
            instances
                .entry(id.slot.service.clone())
                .or_default()
                .insert(id.clone(), placed);
        }
        let lost = observed
            .nodes
            .iter()
            .map(|(name, node)| (name.clone(), node.lost))
            .collect();
        Self {
            desired,
            observed,
            now,
            instances,
            lost,
            rooms,
            plan: Plan::default(),
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

    pub(crate) fn set_stage(&mut self, id: &InstanceId, stage: Stage) {
        if let Some(placed) = self
            .instances
            .get_mut(&id.slot.service)
            .and_then(|all| all.get_mut(id))
        {
            placed.stage = stage;
        }
    }

    /// Removes a record from the view. Its place is free in the next plan, when that is committed.
    pub(crate) fn forget(&mut self, id: &InstanceId) {
        if let Some(all) = self.instances.get_mut(&id.slot.service) {
            all.remove(id);
        }
        self.act(Action::Forget { id: id.clone() });
    }

    pub(crate) fn create(&mut self, id: InstanceId, place: Place) {
        if let Some(room) = place.node().and_then(|node| self.rooms.get_mut(node)) {
            hold(self.desired, room, &id);
        }
        let placed = Placed {
            place: place.clone(),
            stage: Stage::Running,
            phase: Phase::Assigned,
        };
        self.instances
            .entry(id.slot.service.clone())
            .or_default()
            .insert(id.clone(), placed);
        self.act(Action::Create { id, place });
    }

    /// The service's instances, in the order of their identities.
    pub(crate) fn of(&self, service: &ServiceName) -> impl Iterator<Item = (&InstanceId, &Placed)> {
        self.instances.get(service).into_iter().flatten()
    }
}

fn hold(desired: &Desired, room: &mut Room, id: &InstanceId) {
    room.held += 1;
    *room.by_service.entry(id.slot.service.clone()).or_default() += 1;
    if let Some(needs) = desired
        .needs
        .get(&(id.slot.service.clone(), id.slot.revision))
    {
        room.free = room.free.less(&needs.resources);
    }
}
