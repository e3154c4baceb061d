//! Gateways as the API shows them.

use berth_model::api::GatewayView;
use berth_model::gateway::GatewayRecord;
use berth_model::id::GatewayName;
use berth_model::problem::Problem;
use berth_plan::Session;

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
    let session = world.live.gateway_session(&record.name, lease, world.now);
    let connected = session == Session::Connected;
    let report = world.live.gateways.get(&record.name).map(|g| &g.report);
    GatewayView {
        name: record.name.clone(),
        url: record.url.clone(),
        connected,
        revoked: record.revoked,
        current: connected && report.is_some_and(|r| r.acknowledged >= world.table.version),
    }
}
