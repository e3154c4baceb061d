//! Leases: who is lost, who is back, and the brake on losing many at once.

use std::collections::BTreeSet;

use berth_model::id::{InstanceId, NodeName, ServiceName};
use berth_model::instance::{Phase, Stage};
use berth_model::place::Place;
use berth_model::time::Monotonic;

use crate::state::Placed;
use crate::view::View;
use crate::{Action, Session, WaitReason};

pub(crate) fn plan(view: &mut View<'_>) {
    let (over, silent) = leases(view);
    let total = u32::try_from(view.observed.nodes.len()).unwrap_or(u32::MAX);
    // A single node is never a mass, however small the fleet.
    let limit = u64::from(view.observed.settings.mass_loss_percent) * u64::from(total);
    let braked = silent >= 2 && u64::from(silent) * 100 > limit;
    for node in over {
        if braked {
            hold_replacements(view, &node, silent, total);
        } else {
            view.set_lost(&node, true);
            view.act(Action::LoseNode { node });
        }
    }
    fence(view);
}

/// Nodes whose lease is over and that are not declared lost yet, and how many nodes fell silent
/// lately: all silent ones, and lost ones whose silence began within the last two leases.
fn leases(view: &mut View<'_>) -> (Vec<NodeName>, u32) {
    let lease = view.observed.settings.node_lease;
    let (mut over, mut silent) = (Vec::new(), 0);
    let away: Vec<NodeName> = view.state.away.iter().cloned().collect();
    for name in &away {
        let Some(node) = view.observed.nodes.get(name) else {
            continue;
        };
        match (view.silent_since(node.session), node.lost) {
            (None, true) => {
                view.set_lost(name, false);
                view.act(Action::ReturnNode { node: name.clone() });
            }
            (None, false) => {}
            (Some(since), true) => {
                let heard = !matches!(node.session, Session::NotYet);
                silent += u32::from(heard && within_two_leases(view, since));
            }
            (Some(since), false) => {
                silent += 1;
                if view.is_over(since, lease) {
                    over.push(name.clone());
                }
            }
        }
    }
    (over, silent)
}

fn within_two_leases(view: &View<'_>, since: Monotonic) -> bool {
    view.now.since(since) < 2 * view.observed.settings.node_lease.0
}

fn hold_replacements(view: &mut View<'_>, node: &NodeName, silent: u32, nodes: u32) {
    let live = |id: &&InstanceId| view.get(id).is_some_and(Placed::is_live);
    let services = view.on(node).filter(live);
    let services: BTreeSet<ServiceName> = services.map(|id| id.slot.service.clone()).collect();
    for service in services {
        let reason = WaitReason::MassLoss { silent, nodes };
        if !view
            .plan
            .waiting
            .iter()
            .any(|w| w.service == service && w.reason == reason)
        {
            view.wait(&service, reason);
        }
    }
}

/// What ran on a lost node is fenced; once its node is back and has let go of it, it is forgotten.
fn fence(view: &mut View<'_>) {
    let state = &view.state;
    let nodes = state.lost.iter().chain(&state.adrift);
    let there = nodes.flat_map(|node| view.on(node));
    let fenced = |id: &&InstanceId| view.get(id).is_some_and(|p| p.stage == Stage::Lost);
    let fenced = state.leaving.iter().filter(fenced);
    let ids: BTreeSet<InstanceId> = there.chain(fenced).cloned().collect();
    for id in ids {
        // What is in a cluster is never lost.
        let Some((stage, Place::Node(node))) = view.get(&id).map(|p| (p.stage, &p.place)) else {
            continue;
        };
        let Some(seen) = view.observed.nodes.get(node) else {
            // The node itself was removed: nobody will ever report this instance again.
            view.forget(&id);
            continue;
        };
        let lost = view.state.lost.contains(node);
        let connected = seen.session == Session::Connected;
        let seen = view.observed.instances.get(&id);
        let gone = seen.is_some_and(|s| !s.reported || s.phase == Phase::Stopped);
        match (stage, lost) {
            (Stage::Lost, false) if connected && gone => view.forget(&id),
            (Stage::Lost, _) | (_, false) => {}
            (_, true) => {
                view.set_stage(&id, Stage::Lost);
                view.act(Action::LoseInstance { id });
            }
        }
    }
}
