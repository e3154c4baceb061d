//! Gateways come, report, show their keys, are sent away and go.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_model::api::GatewayView;
use berth_model::gateway::{GatewayRecord, GatewayReport};
use berth_model::id::GatewayName;
use berth_model::problem::Problem;
use berth_model::time::{Monotonic, Timestamp};
use tokio_util::sync::CancellationToken;

use super::check_size;
use crate::control::events::Happened;
use crate::control::live::GatewayProcess;
use crate::control::views;
use crate::control::world::World;
use crate::control::{ConnectionId, GatewayOpened};

const MAX_URL: usize = 2_048;
/// How long relays still let a gateway in that the coordinator has not heard of.
const REMEMBERED: Duration = Duration::from_secs(7 * 86_400);
/// For how long of that, at least, this process must have waited itself: the wall clock may have jumped by a year.
const WAITED: Duration = Duration::from_secs(86_400);
const MAX_INCARNATION: usize = 64;
/// Processes of one name that are remembered: more at a time finish their requests only if somebody
/// starts gateways in a loop.
const MAX_PROCESSES: usize = 16;

/// A gateway process begins to follow. The gateway is kept in the store, so that a restarted coordinator
/// still waits for it before anything is stopped. Answers with its connection, and with what tells that it
/// is sent away. Errors: 403 if it was.
pub(crate) fn open(
    world: &mut World,
    opened: &GatewayOpened,
) -> Result<(ConnectionId, CancellationToken), Problem> {
    let GatewayOpened { name, url, .. } = opened;
    check_size("the gateway's URL", url, MAX_URL)?;
    check_size(
        "the gateway's incarnation",
        &opened.incarnation,
        MAX_INCARNATION,
    )?;
    let known = world.records.gateways.get(name);
    if known.is_some_and(|g| g.revoked) {
        return Err(revoked(name));
    }
    let record = GatewayRecord {
        name: name.clone(),
        url: url.clone(),
        registered: known.map_or(world.wall, |g| g.registered),
        key: known.map(|g| g.key.clone()).unwrap_or_default(),
        revoked: false,
        gone: None,
    };
    // One that ends has nothing to say of where clients go from now on.
    if known.is_none() || (known != Some(&record) && !opened.draining) {
        world.happened(&Happened::GatewayConnected(name, url));
        world.records.gateways.put(name.clone(), record);
    }
    let connection = world.live.connection();
    let over = CancellationToken::new();
    let live = world.live.gateways.entry(name.clone()).or_default();
    let processes = &mut live.processes;
    // What an earlier connection had acknowledged says nothing about this one; and of a process that this
    // one does not name nobody has to be waited for: it is over. Only one that drains does not know them all.
    processes.retain(|process| {
        process.incarnation != opened.incarnation
            && (opened.draining || opened.beside.contains(&process.incarnation))
    });
    if processes.len() >= MAX_PROCESSES {
        processes.remove(0);
    }
    processes.push(GatewayProcess {
        incarnation: opened.incarnation.clone(),
        connection: Some(connection),
        last_heard: Some(world.now),
        report: GatewayReport {
            draining: opened.draining,
            ..GatewayReport::default()
        },
        over: over.clone(),
    });
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
    let name = gateways
        .find(|(_, g)| g.holds(connection))
        .map(|(name, _)| name);
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
        live.processes.iter().for_each(|p| p.over.cancel());
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
            "there is no gateway {name}; `berth gateway list` shows all{hint}"
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
    let (now, wall) = (world.now, world.wall);
    let gateways = &world.records.gateways;
    let over = |gone: Timestamp| gone.age(wall) >= REMEMBERED;
    let old = gateways
        .values()
        .filter(|g| !g.revoked && g.gone.is_some_and(over));
    let old: BTreeMap<GatewayName, Monotonic> = old
        .map(|g| {
            let since = world.live.long_gone.get(&g.name);
            (g.name.clone(), since.copied().unwrap_or(now))
        })
        .collect();
    let waited = |since: &Monotonic| now.since(*since) >= WAITED;
    let (old, waiting): (BTreeMap<_, _>, BTreeMap<_, _>) =
        old.into_iter().partition(|(_, since)| waited(since));
    world.live.long_gone = waiting;
    for name in old.into_keys() {
        world.records.gateways.remove(&name);
        world.happened(&Happened::GatewayRemoved(&name));
    }
}

/// Takes a report. Answers whether it may change the plan.
pub(crate) fn report(world: &mut World, connection: ConnectionId, report: GatewayReport) -> bool {
    let now = world.now;
    let Some(process) = world.live.gateway_of(connection) else {
        return false;
    };
    process.last_heard = Some(now);
    let news = process.report != report;
    process.report = report;
    news
}

/// A gateway's stream is over.
pub(crate) fn close(world: &mut World, connection: ConnectionId) {
    if let Some(process) = world.live.gateway_of(connection) {
        process.connection = None;
    }
}

/// A gateway process has ended in order. The last one of its name is waited for as long as one that is
/// silent: who comes after it may begin with the table that it left.
pub(crate) fn leave(world: &mut World, connection: ConnectionId) {
    for gateway in world.live.gateways.values_mut() {
        if gateway.processes.len() > 1 {
            gateway
                .processes
                .retain(|p| p.connection != Some(connection));
        }
    }
    close(world, connection);
}

#[cfg(test)]
mod tests;
