//! Gateways come, report and go.

use berth_model::gateway::{GatewayRecord, GatewayReport};
use berth_model::id::GatewayName;
use berth_model::problem::Problem;

use super::check_size;
use crate::control::ConnectionId;
use crate::control::events::Happened;
use crate::control::live::LiveGateway;
use crate::control::world::World;

const MAX_URL: usize = 2_048;

/// A gateway begins to follow. It is kept in the store, so that a restarted coordinator still waits
/// for it before anything is stopped.
pub(crate) fn open(
    world: &mut World,
    name: &GatewayName,
    url: &str,
) -> Result<ConnectionId, Problem> {
    check_size("the gateway's URL", &url, MAX_URL)?;
    let known = world.records.gateways.get(name);
    let record = GatewayRecord {
        name: name.clone(),
        url: url.to_owned(),
        registered: known.map_or(world.wall, |g| g.registered),
    };
    if known != Some(&record) {
        world.happened(&Happened::GatewayConnected(name, url));
        world.records.gateways.put(name.clone(), record);
    }
    let connection = world.live.connection();
    // What an earlier process of that name had acknowledged says nothing about this one.
    let gateway = LiveGateway {
        connection: Some(connection),
        last_heard: Some(world.now),
        report: GatewayReport::default(),
    };
    world.live.gateways.insert(name.clone(), gateway);
    Ok(connection)
}

/// Takes a report. Answers whether it may change the plan.
pub(crate) fn report(world: &mut World, connection: ConnectionId, report: GatewayReport) -> bool {
    let now = world.now;
    let Some(gateway) = world.live.gateway_of(connection) else {
        return false;
    };
    gateway.last_heard = Some(now);
    let news = gateway.report != report;
    gateway.report = report;
    news
}

/// A gateway's stream is over.
pub(crate) fn close(world: &mut World, connection: ConnectionId) {
    if let Some(gateway) = world.live.gateway_of(connection) {
        gateway.connection = None;
    }
}
