use berth_model::id::{GatewayName, NodeName};
use berth_model::node::Condition;
use berth_model::relay::RelayFacts;
use berth_model::route::Order;
use berth_plan::{GatewaySeen, Session};

use super::*;
use crate::control::callers;
use crate::control::observe;
use crate::control::testing::{connect, world_with_service};
use crate::control::{AgentName, ToAgent};

fn name() -> GatewayName {
    "edge".parse().unwrap()
}

fn process(incarnation: &str, beside: &[&str]) -> GatewayOpened {
    GatewayOpened {
        name: name(),
        url: format!("http://{incarnation}"),
        incarnation: incarnation.to_owned(),
        beside: beside.iter().map(|&i| i.to_owned()).collect(),
        draining: false,
    }
}

fn called(name: &GatewayName) -> GatewayOpened {
    GatewayOpened {
        name: name.clone(),
        ..process("", &[])
    }
}

fn said(generation: u64, draining: bool) -> GatewayReport {
    GatewayReport {
        acknowledged: Order {
            generation,
            ..Order::default()
        },
        in_flight: Vec::new(),
        draining,
    }
}

fn seen(world: &World) -> GatewaySeen {
    observe::gateway(world, &name())
}

fn generations(world: &World) -> (u64, Vec<u64>) {
    let seen = seen(world);
    let beside = seen.beside.iter().map(|p| p.acknowledged.generation);
    (seen.acknowledged.generation, beside.collect())
}

#[test]
fn both_count_while_one_hands_over_to_the_other() {
    let mut world = world_with_service();
    let old = open(&mut world, &process("a", &[])).unwrap().0;
    report(&mut world, old, said(5, false));
    // The new one has acknowledged nothing before it says so, and the old one is not forgotten.
    let new = open(&mut world, &process("b", &["a"])).unwrap().0;
    assert_eq!(generations(&world), (0, vec![5]));
    report(&mut world, new, said(6, false));
    report(&mut world, old, said(5, true));
    assert_eq!(generations(&world), (6, vec![5]));
    assert_eq!(world.records.gateways[&name()].url, "http://b");
    leave(&mut world, old);
    assert_eq!(generations(&world), (6, vec![]));
    // The last one is waited for until its lease is over.
    leave(&mut world, new);
    assert_eq!(generations(&world), (6, vec![]));
    assert!(matches!(seen(&world).session, Session::Silent(_)));
}

#[test]
fn a_process_that_starts_on_its_own_replaces_all_of_its_name() {
    let mut world = world_with_service();
    let old = open(&mut world, &process("a", &[])).unwrap().0;
    report(&mut world, old, said(5, false));
    open(&mut world, &process("b", &["a"])).unwrap();
    // Both died, however that came about.
    let third = open(&mut world, &process("c", &[])).unwrap().0;
    report(&mut world, third, said(7, false));
    assert_eq!(generations(&world), (7, vec![]));
    assert!(!report(&mut world, old, said(8, false)));
    // Gateways from before there were incarnations are told apart by nothing: the newest counts.
    for _ in 0..2 {
        let older = open(&mut world, &process("", &[])).unwrap().0;
        report(&mut world, older, said(9, false));
        assert_eq!(generations(&world), (9, vec![]));
    }
}

#[test]
fn one_that_drains_is_not_the_gateway_and_forgets_nobody() {
    let mut world = world_with_service();
    let drains = GatewayOpened {
        draining: true,
        ..process("a", &[])
    };
    // After the coordinator's own restart, the old one may be the first to come back.
    let old = open(&mut world, &drains).unwrap().0;
    report(&mut world, old, said(5, true));
    assert_eq!(seen(&world).session, Session::NotYet);
    assert_eq!(generations(&world), (0, vec![5]));
    let new = open(&mut world, &process("b", &["a"])).unwrap().0;
    report(&mut world, new, said(6, false));
    open(&mut world, &drains).unwrap();
    assert_eq!(generations(&world), (6, vec![0]));
    assert_eq!(world.records.gateways[&name()].url, "http://b");
    open(&mut world, &process("b", &["a"])).unwrap();
    assert_eq!(generations(&world), (0, vec![0]));
}

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
    let (connection, over) = open(&mut w, &called(&name)).unwrap();
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
fn it_is_said_which_relays_may_still_let_a_revoked_gateway_in() {
    let mut w = world_with_service();
    let mut words = connect(&mut w, "n1");
    for (name, relay) in [("n1", true), ("n2", true), ("n3", false)] {
        let mut record = w.records.nodes.values().next().unwrap().clone();
        record.name = name.parse().unwrap();
        record.facts.relay = relay.then(|| RelayFacts {
            address: "10.0.0.7:7460".parse().unwrap(),
            key: "aa".to_owned(),
        });
        w.records.nodes.put(record.name.clone(), record);
    }
    let name: GatewayName = "g1".parse().unwrap();
    let (connection, _) = open(&mut w, &called(&name)).unwrap();
    key(&mut w, connection, "aa").unwrap();
    callers::tell(&mut w);
    let untold = |w: &World| {
        let view = views::gateway::one(w, &name).unwrap();
        let names: Vec<String> = view.untold.iter().map(ToString::to_string).collect();
        let said = views::status::status(w).problems;
        let said = said.iter().any(|p| p.message.starts_with("revoked, but"));
        assert_eq!(said, !names.is_empty());
        names
    };
    assert!(untold(&w).is_empty(), "it is let in");
    revoke(&mut w, &name).unwrap();
    callers::tell(&mut w);
    assert_eq!(untold(&w), ["n2"], "its agent has no session");
    w.settling = true;
    assert_eq!(untold(&w), ["n1", "n2"]);
    w.settling = false;
    assert_eq!(untold(&w), ["n2"]);
    // Its agent was told, but cannot tell the relay, for all that is known.
    let mut record = w.records.nodes[&NodeName::new("n1").unwrap()].clone();
    let well = record.clone();
    record.facts.conditions.push(Condition {
        kind: Condition::RELAY.to_owned(),
        message: "it does not answer".to_owned(),
    });
    w.records.nodes.put(record.name.clone(), record);
    assert_eq!(untold(&w), ["n1", "n2"]);
    w.records.nodes.put(well.name.clone(), well);
    assert_eq!(untold(&w), ["n2"]);
    // The session is there, but nothing has come over it for most of the lease.
    let now = w.now;
    w.now = now.after(w.settings.node_lease.0 * 2 / 3);
    assert_eq!(untold(&w), ["n1", "n2"]);
    w.now = now;
    let n1 = AgentName::Node("n1".parse().unwrap());
    w.live.agents.get_mut(&n1).unwrap().session = None;
    assert_eq!(untold(&w), ["n1", "n2"]);
    // One that has never shown a key is on no relay's list.
    let mut record = w.records.gateways[&name].clone();
    record.key = String::new();
    w.records.gateways.put(name.clone(), record);
    assert!(untold(&w).is_empty());
    while words.try_recv().is_ok() {}
}

#[test]
fn a_gateway_out_of_reach_is_still_let_in_for_a_week() {
    let mut w = world_with_service();
    let name: GatewayName = "g1".parse().unwrap();
    let (connection, _) = open(&mut w, &called(&name)).unwrap();
    key(&mut w, connection, "aa").unwrap();
    lose(&mut w, &name);
    callers::tell(&mut w);
    assert_eq!(w.live.callers.len(), 1);
    prune(&mut w);
    assert!(w.records.gateways.contains_key(&name));
    // A clock that jumps ahead cuts nobody off who is merely out of reach.
    w.wall = Timestamp(w.wall.0 + 365 * 86_400_000);
    prune(&mut w);
    w.now = w.now.after(WAITED / 2);
    prune(&mut w);
    assert!(w.records.gateways.contains_key(&name));
    w.now = w.now.after(WAITED / 2);
    prune(&mut w);
    assert!(w.live.long_gone.is_empty());
    assert!(!w.records.gateways.contains_key(&name));
    // One that never asked for a certificate is nobody for relays.
    open(&mut w, &called(&name)).unwrap();
    lose(&mut w, &name);
    assert!(!w.records.gateways.contains_key(&name));
}

#[test]
fn a_revoked_gateway_comes_back_neither_by_its_name_nor_by_its_key() {
    let mut w = world_with_service();
    let name: GatewayName = "g1".parse().unwrap();
    let (connection, _) = open(&mut w, &called(&name)).unwrap();
    key(&mut w, connection, "aa").unwrap();
    assert_eq!(remove(&mut w, &name).unwrap_err().status, 409);
    revoke(&mut w, &name).unwrap();
    assert_eq!(key(&mut w, connection, "bb").unwrap_err().status, 409);
    assert_eq!(open(&mut w, &called(&name)).unwrap_err().status, 403);
    let other: GatewayName = "g2".parse().unwrap();
    let (connection, _) = open(&mut w, &called(&other)).unwrap();
    assert_eq!(key(&mut w, connection, "aa").unwrap_err().status, 403);
    key(&mut w, connection, "bb").unwrap();
    remove(&mut w, &name).unwrap();
    open(&mut w, &called(&name)).unwrap();
    let nobody: GatewayName = "g9".parse().unwrap();
    assert_eq!(revoke(&mut w, &nobody).unwrap_err().status, 404);
}
