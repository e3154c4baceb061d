//! What a planned action changes in the records.

use berth_model::id::{InstanceId, NodeName, ServiceName, Slot};
use berth_model::instance::{InstanceRecord, InstanceStatus, Phase, Stage};
use berth_model::place::Place;
use berth_model::resources::Resources;
use berth_plan::{Action, Session};

use super::commands::{drains, gateways, jobs};
use super::events::{Happened, OfJob};
use super::world::World;

/// Carries out one action. What is not there any more is nothing to act on.
pub(crate) fn act(world: &mut World, action: Action) {
    match action {
        Action::SetReplicas {
            service,
            revision,
            replicas,
        } => set_replicas(world, &service, revision, replicas),
        Action::DropRevision { service, revision } => drop_revision(world, &service, revision),
        Action::DropService { service } => drop_service(world, &service),
        Action::Create {
            id,
            place,
            reserved,
            gpus,
        } => create(world, id, place, reserved, gpus),
        Action::Drain { id, why } => {
            world.live.draining_since.insert(id.clone(), world.now);
            if set_stage(world, &id, Stage::Draining).is_some() {
                world.happened(&Happened::InstanceDraining(&id, &why));
            }
        }
        Action::Stop { id, deadline } => {
            if set_stage(world, &id, Stage::Stopping).is_some() {
                world.happened(&Happened::InstanceStopping(&id, deadline));
            }
        }
        Action::EndTask { id, why } => {
            if set_stage(world, &id, Stage::Stopping).is_some() {
                world.happened(&Happened::Job(OfJob::TaskStopping(&id, &why)));
            }
        }
        Action::PlaceJob { job, cluster } => jobs::place(world, &job, cluster),
        Action::ExpireJob { job } => jobs::expire(world, &job),
        Action::DropJob { job } => jobs::emptied(world, &job),
        Action::LoseInstance { id } => {
            if let Some(place) = set_stage(world, &id, Stage::Lost) {
                world.happened(&Happened::InstanceLost(&id, &place));
            }
        }
        Action::Forget { id } => forget(world, &id),
        Action::NodeDrained { node } => drains::drained(world, &node),
        Action::LoseNode { node } => lose_node(world, &node, true),
        Action::ReturnNode { node } => lose_node(world, &node, false),
        Action::ForgetGateway { gateway } => gateways::lose(world, &gateway),
    }
}

fn set_replicas(world: &mut World, name: &ServiceName, number: u32, replicas: u32) {
    let Some(mut service) = world.records.services.get(name).cloned() else {
        return;
    };
    let Some(revision) = service.revisions.get_mut(&number) else {
        return;
    };
    revision.replicas = replicas;
    world.happened(&Happened::RevisionScaled(name, number, replicas));
    world.records.services.put(name.clone(), service);
}

fn drop_revision(world: &mut World, name: &ServiceName, number: u32) {
    let Some(mut service) = world.records.services.get(name).cloned() else {
        return;
    };
    if service.revisions.remove(&number).is_some() {
        drop_attempts(world, name, Some(number));
        world.happened(&Happened::RevisionDropped(name, number));
        world.records.services.put(name.clone(), service);
    }
}

fn drop_service(world: &mut World, name: &ServiceName) {
    if world.records.services.remove(name).is_some() {
        drop_attempts(world, name, None);
        world.happened(&Happened::ServiceGone(name));
    }
}

/// A revision's number is never given again, so its slots' counters have nothing left to protect.
pub(crate) fn drop_attempts(world: &mut World, name: &ServiceName, revision: Option<u32>) {
    let attempts = &mut world.records.attempts;
    let first = Slot {
        service: name.clone(),
        revision: revision.unwrap_or_default(),
        ordinal: 0,
    };
    let mine = attempts.range(first..).map(|(slot, _)| slot);
    let over: Vec<Slot> = mine
        .take_while(|s| s.service == *name && revision.is_none_or(|r| s.revision == r))
        .cloned()
        .collect();
    for slot in &over {
        attempts.remove(slot);
    }
}

pub(crate) fn create(
    world: &mut World,
    id: InstanceId,
    place: Place,
    reserved: Resources,
    gpus: Vec<String>,
) {
    world.happened(&Happened::InstanceCreated(&id, &place));
    world.records.attempts.put(id.slot.clone(), id.attempt);
    let record = InstanceRecord {
        id: id.clone(),
        place,
        pod: None,
        reserved: Some(reserved),
        gpus,
        stage: Stage::Running,
        status: InstanceStatus {
            id: id.clone(),
            phase: Phase::Assigned,
            start: 0,
            restarts: 0,
            address: None,
            reason: None,
            last_lines: Vec::new(),
            pid: None,
            since: world.wall,
            digest: None,
            output: None,
            gpus: Vec::new(),
        },
        created: world.wall,
    };
    world.records.instances.put(id, record);
}

/// Moves an instance forward; answers its place, or none if there is nothing to move.
fn set_stage(world: &mut World, id: &InstanceId, stage: Stage) -> Option<Place> {
    let mut record = world.records.instances.get(id)?.clone();
    if record.stage >= stage {
        return None;
    }
    record.stage = stage;
    let place = record.place.clone();
    world.records.instances.put(id.clone(), record);
    Some(place)
}

fn forget(world: &mut World, id: &InstanceId) {
    let gone = world.records.instances.remove(id);
    world.live.ends.gone.remove(id);
    world.live.ends.ended.remove(id);
    // That it has stopped was told when its agent said so.
    if gone.is_some_and(|r| r.status.phase != Phase::Stopped) {
        world.happened(&Happened::InstanceForgotten(id));
    }
}

fn lose_node(world: &mut World, name: &NodeName, lost: bool) {
    let session = world.session(name);
    let Some(mut node) = world.records.nodes.get(name).cloned() else {
        return;
    };
    node.lost = lost;
    world.records.nodes.put(name.clone(), node);
    let since = match session {
        Session::Silent(at) => at.max(world.started),
        Session::Connected | Session::NotYet => world.started,
    };
    let seconds = world.now.since(since).as_secs();
    world.happened(&if lost {
        Happened::NodeLost(name, seconds)
    } else {
        Happened::NodeReturned(name)
    });
}
