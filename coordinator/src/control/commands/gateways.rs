//! Gateways come, report, show their keys, are sent away and go.

use std::time::Duration;

use berth_model::api::GatewayView;
use berth_model::gateway::{GatewayRecord, GatewayReport};
use berth_model::id::GatewayName;
use berth_model::problem::Problem;
use berth_model::time::Timestamp;
use tokio_util::sync::CancellationToken;

use super::check_size;
use crate::control::ConnectionId;
use crate::control::events::Happened;
use crate::control::live::LiveGateway;
use crate::control::views;
use crate::control::world::World;

const MAX_URL: usize = 2_048;
/// How long relays still let a gateway in that the coordinator has not heard of.
const REMEMBERED: Duration = Duration::from_secs(7 * 86_400);

/// A gateway begins to follow. It is kept in the store, so that a restarted coordinator still waits
/// for it before anything is stopped. Answers with its connection, and with what tells that it is sent away.
/// Errors: 403 if it was.
pub(crate) fn open(
    world: &mut World,
    name: &GatewayName,
    url: &str,
) -> Result<(ConnectionId, CancellationToken), Problem> {
    check_size("the gateway's URL", &url, MAX_URL)?;
    let known = world.records.gateways.get(name);
    if known.is_some_and(|g| g.revoked) {
        return Err(revoked(name));
    }
    let record = GatewayRecord {
        name: name.clone(),
        url: url.to_owned(),
        registered: known.map_or(world.wall, |g| g.registered),
        key: known.map(|g| g.key.clone()).unwrap_or_default(),
        revoked: false,
        gone: None,
    };
    if known != Some(&record) {
        world.happened(&Happened::GatewayConnected(name, url));
        world.records.gateways.put(name.clone(), record);
    }
    let connection = world.live.connection();
    let over = CancellationToken::new();
    // What an earlier process of that name had acknowledged says nothing about this one.
    let gateway = LiveGateway {
        connection: Some(connection),
        last_heard: Some(world.now),
        report: GatewayReport::default(),
        over: over.clone(),
    };
    world.live.gateways.insert(name.clone(), gateway);
    Ok((connection, over))
}

fn revoked(name: &GatewayName) -> Problem {
    Problem::new(
        403,
        "revoked",
        "Gateway revoked",
        format!(
            "gateway {name} or its key was revoked; `berth gateway remove {name}` lets it come again"
        ),
    )
}

/// Takes the key that a gateway will show to relays, in place of its last one. Errors: 409 when its stream is
/// over; 403 for the key of one that was sent away, whatever it is called now.
pub(crate) fn key(world: &mut World, connection: ConnectionId, key: &str) -> Result<(), Problem> {
    let mut gateways = world.live.gateways.iter();
    let holds = |g: &LiveGateway| g.connection == Some(connection);
    let name = gateways.find(|(_, g)| holds(g)).map(|(name, _)| name);
    let known = name.and_then(|name| world.records.gateways.get(name));
    let Some(known) = known else {
        return Err(Problem::conflict("the gateway's stream is over"));
    };
    let mut others = world.records.gateways.values();
    if let Some(other) = others.find(|g| g.revoked && g.key == key) {
        return Err(revoked(&other.name));
    }
    if known.key != key {
        let record = GatewayRecord {
            key: key.to_owned(),
            ..known.clone()
        };
        world.records.gateways.put(record.name.clone(), record);
    }
    Ok(())
}

/// Sends a gateway away. Its record stays, so that neither its name nor its key is taken again. Errors: 404.
pub(crate) fn revoke(world: &mut World, name: &GatewayName) -> Result<GatewayView, Problem> {
    let mut record = find(world, name)?.clone();
    if !record.revoked {
        record.revoked = true;
        world.records.gateways.put(name.clone(), record);
        world.happened(&Happened::GatewayRevoked(name));
    }
    // It no longer counts when an instance is to be stopped: no relay lets it in.
    if let Some(live) = world.live.gateways.remove(name) {
        live.over.cancel();
    }
    views::gateway::one(world, name)
}

/// Forgets a gateway, which may come again. Errors: 404; 409 while it is connected, as it would be back at once.
pub(crate) fn remove(world: &mut World, name: &GatewayName) -> Result<GatewayView, Problem> {
    find(world, name)?;
    let view = views::gateway::one(world, name)?;
    if view.connected {
        return Err(Problem::conflict(format!(
            "gateway {name} is connected: stop it first, or send it away with `berth gateway revoke {name}`"
        )));
    }
    world.records.gateways.remove(name);
    world.live.gateways.remove(name);
    world.happened(&Happened::GatewayRemoved(name));
    Ok(view)
}

fn find<'a>(world: &'a World, name: &GatewayName) -> Result<&'a GatewayRecord, Problem> {
    let gateways = &world.records.gateways;
    gateways.get(name).ok_or_else(|| {
        let known: Vec<&str> = gateways.keys().map(GatewayName::as_str).collect();
        let hint = berth_model::manifest::suggest::did_you_mean(name.as_str(), &known);
        Problem::not_found(format!(
            "there is no gateway {name}{hint}; `berth gateway list` shows all"
        ))
    })
}

/// Its lease is over: stopping does not wait for it any more. One that has shown a key is remembered, as relays
/// shall still let it in.
pub(crate) fn lose(world: &mut World, name: &GatewayName) {
    world.live.gateways.remove(name);
    let Some(mut record) = world.records.gateways.get(name).cloned() else {
        return;
    };
    if record.key.is_empty() {
        world.records.gateways.remove(name);
    } else {
        record.gone = Some(world.wall);
        world.records.gateways.put(name.clone(), record);
    }
    world.happened(&Happened::GatewayLost(name));
}

/// Forgets those that have been gone for long: nobody will come back under that name.
pub(crate) fn prune(world: &mut World) {
    let wall = world.wall;
    let gateways = world.records.gateways.values();
    let over = |gone: Timestamp| gone.age(wall) >= REMEMBERED;
    let old: Vec<GatewayName> = gateways
        .filter(|g| !g.revoked && g.gone.is_some_and(over))
        .map(|g| g.name.clone())
        .collect();
    for name in old {
        world.records.gateways.remove(&name);
        world.happened(&Happened::GatewayRemoved(&name));
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::callers;
    use crate::control::testing::{connect, world_with_service};
    use crate::control::{AgentName, ToAgent};

    #[test]
    fn who_may_come_is_told_once_and_whenever_it_changes() {
        let mut w = world_with_service();
        let mut words = connect(&mut w, "n1");
        let mut told = |w: &mut World| -> Option<Vec<String>> {
            assert!(callers::tell(w).is_empty());
            let word = words.try_recv().ok()?;
            let ToAgent::Callers(callers) = word else {
                panic!("another word")
            };
            Some(
                callers
                    .iter()
                    .map(|c| format!("{}={}", c.name, c.key))
                    .collect(),
            )
        };
        assert_eq!(told(&mut w), Some(vec![]));
        let name: GatewayName = "g1".parse().unwrap();
        let (connection, over) = open(&mut w, &name, "http://g1").unwrap();
        assert_eq!(told(&mut w), None);
        key(&mut w, connection, "aa").unwrap();
        assert_eq!(told(&mut w), Some(vec!["g1=aa".to_owned()]));
        key(&mut w, connection, "aa").unwrap();
        assert_eq!(told(&mut w), None);

        w.settling = true;
        assert!(!over.is_cancelled());
        assert!(!revoke(&mut w, &name).unwrap().connected);
        assert!(over.is_cancelled());
        assert_eq!(told(&mut w), None, "it looks around after a restore");
        w.settling = false;
        assert_eq!(told(&mut w), Some(vec![]));
        let event = w.records.events.values().next_back().unwrap();
        assert_eq!(event.kind, "gateway-revoked");
        assert!(
            w.live
                .agents
                .contains_key(&AgentName::Node("n1".parse().unwrap()))
        );
    }

    #[test]
    fn a_gateway_out_of_reach_is_still_let_in_for_a_week() {
        let mut w = world_with_service();
        let name: GatewayName = "g1".parse().unwrap();
        let (connection, _) = open(&mut w, &name, "http://g1").unwrap();
        key(&mut w, connection, "aa").unwrap();
        lose(&mut w, &name);
        callers::tell(&mut w);
        assert_eq!(w.live.callers.len(), 1);
        prune(&mut w);
        assert!(w.records.gateways.contains_key(&name));
        w.wall = Timestamp(w.wall.0 + 7 * 86_400_000);
        prune(&mut w);
        assert!(!w.records.gateways.contains_key(&name));
        // One that never asked for a certificate is nobody for relays.
        open(&mut w, &name, "http://g1").unwrap();
        lose(&mut w, &name);
        assert!(!w.records.gateways.contains_key(&name));
    }

    #[test]
    fn a_revoked_gateway_comes_back_neither_by_its_name_nor_by_its_key() {
        let mut w = world_with_service();
        let name: GatewayName = "g1".parse().unwrap();
        let (connection, _) = open(&mut w, &name, "http://g1").unwrap();
        key(&mut w, connection, "aa").unwrap();
        assert_eq!(remove(&mut w, &name).unwrap_err().status, 409);
        revoke(&mut w, &name).unwrap();
        assert_eq!(key(&mut w, connection, "bb").unwrap_err().status, 409);
        assert_eq!(open(&mut w, &name, "http://g1").unwrap_err().status, 403);
        let other: GatewayName = "g2".parse().unwrap();
        let (connection, _) = open(&mut w, &other, "http://g2").unwrap();
        assert_eq!(key(&mut w, connection, "aa").unwrap_err().status, 403);
        key(&mut w, connection, "bb").unwrap();
        remove(&mut w, &name).unwrap();
        open(&mut w, &name, "http://g1").unwrap();
        let nobody: GatewayName = "g9".parse().unwrap();
        assert_eq!(revoke(&mut w, &nobody).unwrap_err().status, 404);
    }
}
