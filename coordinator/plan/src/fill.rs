//! Draining what is too much, creating what is missing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use berth_model::id::{InstanceId, ServiceName, Slot};
use berth_model::instance::Stage;
use berth_model::node::RuntimeKind;
use berth_model::place::Place;
use berth_model::service::ServiceRecord;

use crate::place;
use crate::reject::{Rejection, Rejections};
use crate::state::Placed;
use crate::vacate;
use crate::view::View;
use crate::{Action, Needs, Session, WaitReason};

pub(crate) fn plan(view: &mut View<'_>, service: &ServiceRecord, targets: &BTreeMap<u32, u32>) {
    let current = service.current().map(|r| r.number);
    let why = |revision: u32| match current {
        _ if service.deleting => "service deleted".to_owned(),
        Some(current) if current != revision => format!("replaced by revision {current}"),
        _ => "scaled down".to_owned(),
    };
    // Surplus first: what leaves and what comes are planned on the same view.
    for (revision, target) in targets {
        drain_surplus(view, service, *revision, *target, &why(*revision));
    }
    // The wanted revision is placed first where places are short.
    for (revision, target) in targets.iter().rev() {
        create_missing(view, service, *revision, *target);
    }
    drop_empty(view, service, targets);
}

fn live(view: &View<'_>, service: &ServiceRecord, revision: u32) -> Vec<InstanceId> {
    view.of(&service.name)
        .filter(|(id, placed)| id.slot.revision == revision && placed.is_live())
        .map(|(id, _)| id.clone())
        .collect()
}

fn drain_surplus(
    view: &mut View<'_>,
    service: &ServiceRecord,
    revision: u32,
    target: u32,
    why: &str,
) {
    let mut ids = live(view, service, revision);
    // What leaves a node that is drained goes when its replacement is there.
    ids.retain(|id| !vacate::leaves(view, id));
    let surplus = ids.len().saturating_sub(target as usize);
    if surplus == 0 {
        return;
    }
    // Those that serve least go first: not healthy, on a silent node, then the highest ordinal.
    ids.sort_by_cached_key(|id| {
        let placed = view.get(id);
        let healthy = placed.is_some_and(Placed::is_healthy);
        let connected = placed.is_some_and(|p| is_there(view, &p.place));
        (healthy, connected, Reverse(id.slot.ordinal))
    });
    for id in ids.into_iter().take(surplus) {
        view.drain(&id, why);
    }
}

/// Whether a place answers now.
fn is_there(view: &View<'_>, place: &Place) -> bool {
    match place {
        Place::Node(name) => {
            let node = view.observed.nodes.get(name);
            node.is_some_and(|n| n.session == Session::Connected)
        }
        Place::Cluster(name) => {
            let cluster = view.observed.clusters.get(name);
            cluster.is_some_and(|c| c.unreachable.is_none())
        }
    }
}

fn create_missing(view: &mut View<'_>, service: &ServiceRecord, revision: u32, target: u32) {
    let taken: BTreeSet<u32> = live(view, service, revision)
        .into_iter()
        .map(|id| id.slot.ordinal)
        .collect();
    let missing = target.saturating_sub(u32::try_from(taken.len()).unwrap_or(u32::MAX));
    let free = (0..).filter(|ordinal| !taken.contains(ordinal));
    for (created, ordinal) in (0..missing).zip(free) {
        match place::choose(view, &service.name, revision) {
            Ok(place) => {
                let slot = Slot {
                    service: service.name.clone(),
                    revision,
                    ordinal,
                };
                let attempt = view.observed.attempts.get(&slot).copied().unwrap_or(0) + 1;
                view.create(InstanceId { slot, attempt }, place);
            }
            Err(rejections) => {
                // The next ones would fare no better.
                wait_for_node(view, service, revision, missing - created, &rejections);
                return;
            }
        }
    }
}

fn wait_for_node(
    view: &mut View<'_>,
    service: &ServiceRecord,
    revision: u32,
    missing: u32,
    rejections: &Rejections,
) {
    let rejected = listed(rejections);
    let in_cluster = revision_needs(view, service, revision)
        .is_some_and(|n| n.runtime == RuntimeKind::Kubernetes);
    if in_cluster {
        let clusters = u32::try_from(view.observed.clusters.len()).unwrap_or(u32::MAX);
        let reason = WaitReason::NoCluster {
            missing,
            clusters,
            rejected,
        };
        view.wait(&service.name, reason);
        return;
    }
    let nodes = u32::try_from(view.observed.nodes.len()).unwrap_or(u32::MAX);
    view.wait(
        &service.name,
        WaitReason::NoNode {
            missing,
            nodes,
            rejected,
            advice: advice(rejections),
        },
    );
}

fn revision_needs<'a>(
    view: &View<'a>,
    service: &ServiceRecord,
    revision: u32,
) -> Option<&'a Needs> {
    view.desired.needs.get(&(service.name.clone(), revision))
}

/// How many nodes were rejected for which reason, most first.
pub(crate) fn listed(rejections: &Rejections) -> Vec<(u32, Rejection)> {
    let all = rejections.iter().map(|(why, n)| (*n, why.clone()));
    let mut rejected: Vec<(u32, Rejection)> = all.collect();
    rejected.sort_by_key(|(n, _)| Reverse(*n));
    rejected
}

pub(crate) fn advice(rejections: &Rejections) -> String {
    let main = rejections
        .iter()
        .max_by_key(|(_, n)| **n)
        .map(|(why, _)| why);
    match main {
        None => "join a node: `berth node token create`, then `berth-agent join` on the machine",
        Some(Rejection::Taken) => {
            "join another node (`berth node token create`), or scale down or delete a service"
        }
        Some(Rejection::Cordoned) => "take the cordon off a node, or join another node",
        Some(Rejection::NotConnected | Rejection::Lost) => {
            "look at why the nodes' agents are not connected: `berth node list`"
        }
        Some(Rejection::NoRuntime(_)) => {
            "install that runtime on a node or deploy with another --runtime"
        }
        Some(Rejection::BrokenRuntime(_)) => {
            "`berth node list` says what is wrong with it; it is waited for, or deploy with another --runtime"
        }
        Some(Rejection::NoModule(_)) => {
            "install it on a node, or deploy with --runtime docker, whose image has it"
        }
        Some(Rejection::Unreachable) => "look at the cluster: `berth cluster list`",
        Some(Rejection::NoLabel(_)) => "label a node or deploy to another pool",
        Some(Rejection::DiskFull) => {
            "make room on the nodes' disks: `berth node list` says which are full"
        }
        Some(Rejection::GpusTaken) => {
            "join another node with a GPU, or scale down or delete a service that uses one"
        }
        Some(Rejection::NoGpu | Rejection::NoMemory | Rejection::NoCpu | Rejection::NoDisk) => {
            "join a larger node, or lower [resources] in the package's berth.toml"
        }
    }
    .to_owned()
}

/// Old revisions and deleted services go when nothing of them is left; what is fenced on lost nodes
/// is looked after without them.
fn drop_empty(view: &mut View<'_>, service: &ServiceRecord, targets: &BTreeMap<u32, u32>) {
    let remaining: BTreeSet<u32> = view
        .of(&service.name)
        .filter(|(_, placed)| placed.stage != Stage::Lost)
        .map(|(id, _)| id.slot.revision)
        .collect();
    if service.deleting {
        if remaining.is_empty() {
            view.act(Action::DropService {
                service: service.name.clone(),
            });
        }
        return;
    }
    let current = service.current().map(|r| r.number);
    for (revision, target) in targets {
        if Some(*revision) != current && *target == 0 && !remaining.contains(revision) {
            view.act(Action::DropRevision {
                service: service.name.clone(),
                revision: *revision,
            });
        }
    }
}

/// Instances of services, revisions or jobs that do not exist (after a restore, say) have no purpose.
pub(crate) fn drain_unwanted(view: &mut View<'_>, names: &BTreeSet<ServiceName>) {
    let unwanted: Vec<InstanceId> = names
        .iter()
        .flat_map(|name| view.of(name))
        .filter(|(id, placed)| {
            placed.is_live()
                && !crate::jobs::is_task(view, id)
                && !view
                    .desired
                    .services
                    .get(&id.slot.service)
                    .is_some_and(|s| s.revisions.contains_key(&id.slot.revision))
        })
        .map(|(id, _)| id.clone())
        .collect();
    for id in unwanted {
        view.drain(&id, "its service or revision does not exist");
    }
}
