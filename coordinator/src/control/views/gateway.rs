//! Gateways as the API shows them.

use berth_model::api::GatewayView;
use berth_model::gateway::GatewayRecord;
use berth_model::id::GatewayName;
use berth_model::problem::Problem;
use berth_plan::Session;

use crate::control::callers;
use crate::control::world::World;

/// All known gateways by name.
pub(crate) fn all(world: &World) -> Vec<GatewayView> {
    let gateways = world.records.gateways.values();
    gateways.map(|record| view(world, record)).collect()
}

/// One gateway. Errors: 404.
pub(crate) fn one(world: &World, name: &GatewayName) -> Result<GatewayView, Problem> {
    let record = world.records.gateways.get(name);
    let record = record.ok_or_else(|| Problem::not_found(format!("there is no gateway {name}")))?;
    Ok(view(world, record))
}

fn view(world: &World, record: &GatewayRecord) -> GatewayView {
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
        untold: match record.revoked {
            true => callers::untold(world),
            false => Vec::new(),
        },
        current: connected && there.all(|p| p.report.acknowledged >= world.table.version),
    }
}
