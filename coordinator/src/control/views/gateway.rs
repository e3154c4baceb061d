//! Gateways as the API shows them.

use berth_model::api::GatewayView;
use berth_model::gateway::GatewayRecord;
use berth_model::id::{GatewayName, NodeName};
use berth_model::problem::Problem;
use berth_plan::Session;

use crate::control::callers;
use crate::control::world::World;

/// All known gateways by name.
pub(crate) fn all(world: &World) -> Vec<GatewayView> {
    let gateways = world.records.gateways.values();
    // Whoever was sent away, it is the same list that relays go by.
    let untold = match gateways.clone().any(may_be_let_in) {
        true => callers::untold(world),
        false => Vec::new(),
    };
    gateways
        .map(|record| view(world, record, &untold))
        .collect()
}

/// Whether it was sent away with a key that relays may know. One that has never shown a key was on no list.
fn may_be_let_in(record: &GatewayRecord) -> bool {
    record.revoked && !record.key.is_empty()
}

/// One gateway. Errors: 404.
pub(crate) fn one(world: &World, name: &GatewayName) -> Result<GatewayView, Problem> {
    let record = world.records.gateways.get(name);
    let record = record.ok_or_else(|| Problem::not_found(format!("there is no gateway {name}")))?;
    Ok(view(world, record, &callers::untold(world)))
}

fn view(world: &World, record: &GatewayRecord, untold: &[NodeName]) -> GatewayView {
    let lease = world.settings.gateway_lease;
    let processes = world.live.gateways.get(&record.name);
    let processes = processes.map_or(&[][..], |gateway| &gateway.processes);
    // Also one that drains: it still has clients.
    let mut there = processes
        .iter()
        .filter(|p| p.session(lease, world.now) == Session::Connected)
        .peekable();
    let connected = there.peek().is_some();
    GatewayView {
        name: record.name.clone(),
        url: record.url.clone(),
        connected,
        revoked: record.revoked,
        untold: match may_be_let_in(record) {
            true => untold.to_vec(),
            false => Vec::new(),
        },
        current: connected && there.all(|p| p.report.acknowledged >= world.table.version),
    }
}
