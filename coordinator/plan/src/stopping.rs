//! Ordered stopping: an instance is told to stop only when every live gateway has let go of it.

use berth_model::id::{GatewayName, InstanceId};
use berth_model::instance::{Phase, Stage};
use berth_model::time::Monotonic;

use crate::view::View;
use crate::{Action, InstanceSeen, WaitReason};

pub(crate) fn plan(view: &mut View<'_>) {
    let silent = silent_gateways(view);
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

/// Gateways whose lease is over: nothing waits for them any more.
fn silent_gateways(view: &mut View<'_>) -> Vec<GatewayName> {
    let lease = view.observed.settings.gateway_lease;
    let mut silent = Vec::new();
    for (name, gateway) in &view.observed.gateways {
        if let Some(since) = view.silent_since(gateway.session)
            && view.is_over(since, lease)
        {
            view.act(Action::ForgetGateway {
                gateway: name.clone(),
            });
            silent.push(name.clone());
        }
    }
    silent
}

fn drain(view: &mut View<'_>, id: &InstanceId, seen: &InstanceSeen, silent: &[GatewayName]) {
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
    silent: &[GatewayName],
) -> Option<String> {
    for (name, gateway) in &view.observed.gateways {
        if silent.contains(name) {
            continue;
        }
        if seen.out_since.is_none_or(|out| gateway.acknowledged < out) {
            return Some(format!("gateway {name} to take the new route table"));
        }
        if let Some(requests) = gateway.in_flight.get(id).filter(|n| **n > 0) {
            return Some(format!("{requests} requests in flight at gateway {name}"));
        }
    }
    // Without any gateway the table itself must still have been published without it.
    (seen.out_since.is_none()).then(|| "the new route table".to_owned())
}
