//! Ordered stopping: an instance is told to stop only when every live gateway has let go of it.

use std::collections::BTreeSet;

use berth_model::id::{GatewayName, InstanceId};
use berth_model::instance::{Phase, Stage};
use berth_model::time::Monotonic;

use crate::view::View;
use crate::{Action, GatewaySeen, InstanceSeen, WaitReason};

pub(crate) fn plan(view: &mut View<'_>) {
    let silent = silent_processes(view);
    let observed = view.observed;
    let leaving = view.state.leaving.iter();
    let leaving: Vec<(&InstanceId, &InstanceSeen)> = leaving
        .filter_map(|id| observed.instances.get_key_value(id))
        .collect();
    for (id, seen) in leaving {
        match view.get(id).map(|placed| placed.stage) {
            Some(Stage::Draining) => drain(view, id, seen, &silent),
            Some(Stage::Stopping) if seen.phase == Phase::Stopped => view.forget(id),
            Some(Stage::Stopping) => {
                view.wait(&id.slot.service, WaitReason::Stopping { id: id.clone() });
            }
            Some(Stage::Running | Stage::Lost) | None => {}
        }
    }
}

/// The processes of a gateway by their place: the one that accepts connections, and those beside it.
fn processes(gateway: &GatewaySeen) -> impl Iterator<Item = &GatewaySeen> {
    std::iter::once(gateway).chain(&gateway.beside)
}

/// Gateways' processes whose lease is over: nothing waits for them any more. A gateway that has no other
/// process is forgotten.
fn silent_processes(view: &mut View<'_>) -> BTreeSet<(GatewayName, usize)> {
    let lease = view.observed.settings.gateway_lease;
    let mut silent = BTreeSet::new();
    for (name, gateway) in &view.observed.gateways {
        let mut all = true;
        for (place, process) in processes(gateway).enumerate() {
            if let Some(since) = view.silent_since(process.session)
                && view.is_over(since, lease)
            {
                silent.insert((name.clone(), place));
            } else {
                all = false;
            }
        }
        if all {
            view.act(Action::ForgetGateway {
                gateway: name.clone(),
            });
        }
    }
    silent
}

fn drain(
    view: &mut View<'_>,
    id: &InstanceId,
    seen: &InstanceSeen,
    silent: &BTreeSet<(GatewayName, usize)>,
) {
    let holder = holder(view, id, seen, silent);
    let since = seen
        .draining_since
        .unwrap_or(view.now)
        .max(view.observed.started);
    let deadline = deadline_over(view, since);
    match holder {
        Some(on) if !deadline => {
            view.wait(
                &id.slot.service,
                WaitReason::Draining { id: id.clone(), on },
            );
        }
        held => {
            view.set_stage(id, Stage::Stopping);
            view.act(Action::Stop {
                id: id.clone(),
                deadline: held.is_some(),
            });
        }
    }
}

fn deadline_over(view: &mut View<'_>, since: Monotonic) -> bool {
    let deadline = view.observed.settings.drain_deadline;
    view.is_over(since, deadline)
}

/// What still keeps the instance from being stopped; none when every live gateway has let go.
fn holder(
    view: &View<'_>,
    id: &InstanceId,
    seen: &InstanceSeen,
    silent: &BTreeSet<(GatewayName, usize)>,
) -> Option<String> {
    let all = view.observed.gateways.iter();
    let all = all.flat_map(|(name, gateway)| {
        let numbered = processes(gateway).enumerate();
        numbered.map(move |(place, process)| (name, place, process))
    });
    for (name, place, process) in all {
        if silent.contains(&(name.clone(), place)) {
            continue;
        }
        if seen.out_since.is_none_or(|out| process.acknowledged < out) {
            return Some(format!("gateway {name} to take the new route table"));
        }
        if let Some(requests) = process.in_flight.get(id).filter(|n| **n > 0) {
            return Some(format!("{requests} requests in flight at gateway {name}"));
        }
    }
    // Without any gateway the table itself must still have been published without it.
    (seen.out_since.is_none()).then(|| "the new route table".to_owned())
}
