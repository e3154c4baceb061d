//! Emptying the nodes that are drained.
//!
//! For each instance: another one is started on another node first; when that is healthy, the old one is
//! taken out of the table and stopped (`stopping`). Without a spare place it stays and says so. When the
//! deadline is over it goes without waiting, as long as no more than the service's `max_unavailable` are
//! missing, and beyond that only if the drain is forced. A task of a job may run to its end until the
//! deadline; then it is begun anew elsewhere.
//!
//! Nothing is remembered from plan to plan: what has moved is seen from what runs where, so a drain goes on
//! after a coordinator's restart, and ends with an `uncordon`, whatever it was in the midst of. What is on
//! drained nodes is looked at in every plan; that is little, and time alone changes it.

use std::collections::{BTreeMap, BTreeSet};

use berth_model::id::{InstanceId, NodeName, ServiceName, Slot};
use berth_model::instance::{Phase, Stage};
use berth_model::service::ServiceRecord;

use crate::reject::Rejections;
use crate::view::View;
use crate::{Action, DrainSeen, WaitReason, Waiting, fill, jobs, place};

/// The nodes that are drained.
type Drains = BTreeMap<NodeName, DrainSeen>;

/// An instance that is to leave its node.
struct Mover {
    id: InstanceId,
    node: NodeName,
    drain: DrainSeen,
    /// Takes requests, if only because nothing better is left.
    serves: bool,
    healthy: bool,
}

/// Whether an instance is on a node that is drained.
pub(crate) fn leaves(view: &View<'_>, id: &InstanceId) -> bool {
    let node = view.get(id).and_then(|placed| placed.place.node());
    node.is_some_and(|node| view.state.draining.contains(node))
}

/// Plans what is on drained nodes; after every service has what it lacks, so that replacing what still
/// serves never takes a place from what is missing. Answers what is waited for.
pub(crate) fn plan(view: &mut View<'_>) -> Vec<Waiting> {
    let nodes = view.state.draining.iter();
    let drains: Drains = nodes
        .filter_map(|name| Some((name.clone(), view.observed.nodes.get(name)?.drain?)))
        .collect();
    if drains.is_empty() {
        return Vec::new();
    }
    let waits = view.plan.waiting.len();
    let here = drains.keys().flat_map(|node| view.on(node));
    let services: BTreeSet<ServiceName> = here.map(|id| id.slot.service.clone()).collect();
    for service in services {
        // Where the rollout has just taken a step, that is committed first.
        if let Some(record) = view.desired.services.get(&service)
            && !steps(view, &service)
        {
            one(view, record, &drains);
        }
    }
    end_tasks(view, &drains);
    for (node, drain) in &drains {
        if view.now < drain.due {
            view.wake(drain.due);
        }
        // Nothing on it has a record any more, fenced or not.
        if !drain.drained && view.on(node).next().is_none() {
            let node = node.clone();
            view.act(Action::NodeDrained { node });
        }
    }
    view.plan.waiting.split_off(waits)
}

/// Whether this plan changes how many instances a service's revisions shall have.
fn steps(view: &View<'_>, name: &ServiceName) -> bool {
    let mut actions = view.plan.actions.iter();
    actions.any(|a| matches!(a, Action::SetReplicas { service, .. } if service == name))
}

fn one(view: &mut View<'_>, service: &ServiceRecord, drains: &Drains) {
    for (number, revision) in &service.revisions {
        let (number, target) = (*number, revision.replicas);
        release(view, service, number, target, drains);
        let movers = movers(view, service, number, drains);
        if movers.is_empty() {
            continue;
        }
        let rejections = replace(view, service, number, target, movers.len());
        let (late, early): (Vec<Mover>, Vec<Mover>) =
            movers.into_iter().partition(|m| view.now >= m.drain.due);
        // What has to wait for a replacement: as many as have one on its way, then those without.
        let coming = coming(view, service, number, drains);
        let kept = give_up(view, service, late);
        tell_waiting(view, service, early, coming, rejections.as_ref());
        for mover in kept {
            let reason = WaitReason::KeptServing {
                id: mover.id,
                node: mover.node,
                max_unavailable: service.max_unavailable,
            };
            view.wait(&service.name, reason);
        }
    }
}

/// A revision's instances on drained nodes, those that do not serve first.
fn movers(view: &View<'_>, service: &ServiceRecord, revision: u32, drains: &Drains) -> Vec<Mover> {
    let of_it = view.of(&service.name);
    let live = of_it.filter(|(id, placed)| id.slot.revision == revision && placed.is_live());
    let mut movers: Vec<Mover> = live
        .filter_map(|(id, placed)| {
            let node = placed.place.node()?;
            Some(Mover {
                id: id.clone(),
                node: node.clone(),
                drain: *drains.get(node)?,
                serves: matches!(placed.phase, Phase::Healthy | Phase::Unhealthy),
                healthy: placed.is_healthy(),
            })
        })
        .collect();
    movers.sort_by_key(|mover| mover.serves);
    movers
}

/// A revision's instances that stay where they are, and how many of them are healthy.
fn stays(
    view: &View<'_>,
    service: &ServiceRecord,
    revision: u32,
    drains: &Drains,
) -> (usize, usize) {
    let (mut all, mut healthy) = (0, 0);
    for (id, placed) in view.of(&service.name) {
        let leaves = placed.place.node().is_some_and(|n| drains.contains_key(n));
        if id.slot.revision == revision && placed.is_live() && !leaves {
            all += 1;
            healthy += usize::from(placed.is_healthy());
        }
    }
    (all, healthy)
}

/// Lets those go that are not needed any more: as many serve without them as shall.
fn release(
    view: &mut View<'_>,
    service: &ServiceRecord,
    revision: u32,
    target: u32,
    drains: &Drains,
) {
    let target = target as usize;
    let movers = movers(view, service, revision, drains);
    let (stay, healthy) = stays(view, service, revision, drains);
    let mut live = stay + movers.len();
    let mut serving = healthy + movers.iter().filter(|m| m.serves).count();
    for mover in movers {
        if live > target && (!mover.serves || serving > target) {
            live -= 1;
            serving -= usize::from(mover.serves);
            drain(view, &mover);
        }
    }
}

fn drain(view: &mut View<'_>, mover: &Mover) {
    view.drain(&mover.id, &format!("its node {} is drained", mover.node));
}

/// Starts instances on other nodes for those that are to leave, as far as there are places; answers why
/// there are no more.
fn replace(
    view: &mut View<'_>,
    service: &ServiceRecord,
    revision: u32,
    target: u32,
    movers: usize,
) -> Option<Rejections> {
    let of_it = view.of(&service.name);
    let live = of_it.filter(|(id, placed)| id.slot.revision == revision && placed.is_live());
    let taken: BTreeSet<u32> = live.map(|(id, _)| id.slot.ordinal).collect();
    let stay = taken.len() - movers;
    // What is missing beyond those was looked after before.
    let missing = (target as usize).saturating_sub(stay).min(movers);
    let free = (0..).filter(|ordinal| !taken.contains(ordinal));
    for (_, ordinal) in (0..missing).zip(free) {
        let place = match place::choose(view, &service.name, revision) {
            Ok(place) => place,
            Err(rejections) => return Some(rejections),
        };
        let slot = Slot {
            service: service.name.clone(),
            revision,
            ordinal,
        };
        let attempt = view.observed.attempts.get(&slot).copied().unwrap_or(0) + 1;
        view.create(InstanceId { slot, attempt }, place);
    }
    None
}

/// Instances of a revision that stay and are not healthy yet.
fn coming(view: &View<'_>, service: &ServiceRecord, revision: u32, drains: &Drains) -> usize {
    let (stay, healthy) = stays(view, service, revision, drains);
    stay - healthy
}

/// After the deadline: lets those go that the service can do without, or all if that is forced. Answers
/// with those that stay.
fn give_up(view: &mut View<'_>, service: &ServiceRecord, late: Vec<Mover>) -> Vec<Mover> {
    let least = service.replicas.saturating_sub(service.max_unavailable) as usize;
    let healthy = |view: &View<'_>| {
        let of_it = view.of(&service.name);
        of_it.filter(|(_, placed)| placed.is_healthy()).count()
    };
    let mut kept = Vec::new();
    for mover in late {
        if mover.drain.force || !mover.healthy || healthy(view) > least {
            let why = format!(
                "its node {} is drained and the deadline is over",
                mover.node
            );
            view.drain(&mover.id, &why);
        } else {
            kept.push(mover);
        }
    }
    kept
}

fn tell_waiting(
    view: &mut View<'_>,
    service: &ServiceRecord,
    early: Vec<Mover>,
    coming: usize,
    rejections: Option<&Rejections>,
) {
    let nodes = u32::try_from(view.observed.nodes.len()).unwrap_or(u32::MAX);
    for (at, mover) in early.into_iter().enumerate() {
        let Mover { id, node, .. } = mover;
        let reason = match rejections {
            Some(rejections) if at >= coming => WaitReason::NoSpareNode {
                id,
                node,
                nodes,
                rejected: fill::listed(rejections),
            },
            _ => WaitReason::Moving { id, node },
        };
        view.wait(&service.name, reason);
    }
}

/// Tasks run to their end until the deadline; then they are told to stop, and `jobs` begins them anew.
fn end_tasks(view: &mut View<'_>, drains: &Drains) {
    let here = drains.keys().flat_map(|node| {
        let ids = view.on(node);
        ids.map(move |id| (id.clone(), node.clone()))
    });
    let runs = |id: &InstanceId| {
        let placed = view.get(id);
        placed.is_some_and(|p| p.is_live() && p.phase != Phase::Stopped)
    };
    let tasks: Vec<(InstanceId, NodeName)> = here
        .filter(|(id, _)| jobs::is_task(view, id) && runs(id))
        .collect();
    for (id, node) in tasks {
        if drains.get(&node).is_some_and(|d| view.now >= d.due) {
            view.set_stage(&id, Stage::Stopping);
            let why = format!("its node {node} is drained and the deadline is over");
            view.act(Action::EndTask { id, why });
        } else {
            let service = id.slot.service.clone();
            view.wait(&service, WaitReason::TaskEnds { id, node });
        }
    }
}
