//! Nodes that are drained and cut off: with traffic all the time, through the coordinator's ends.

use std::sync::Arc;
use std::time::Duration;

use berth_model::api::{DrainNode, DrainView, NodeView};
use berth_model::id::{InstanceId, NodeName};
use berth_model::time::Span;

use super::fleet::{Fleet, web};
use super::sessions::kinds;
use crate::control::Command;

async fn node(fleet: &Fleet, name: &NodeName) -> NodeView {
    let command = |reply| Command::Node(name.clone(), reply);
    fleet.handle.ask(command).await.unwrap()
}

async fn drain(fleet: &Fleet, name: &NodeName, seconds: u64, force: bool) -> DrainView {
    let wanted = DrainNode {
        deadline: Some(Span::secs(seconds)),
        force,
    };
    let command = |reply| Command::DrainNode(name.clone(), wanted, reply);
    fleet.handle.ask(command).await.unwrap().drain.unwrap()
}

async fn drained(fleet: &Fleet, name: &NodeName) -> DrainView {
    for _ in 0..4_000 {
        let view = node(fleet, name).await.drain.unwrap();
        if view.drained.is_some() {
            return view;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{name} is never empty: {:#?}", node(fleet, name).await);
}

async fn place(fleet: &Fleet, at: usize) -> NodeName {
    let view = fleet.ready().await;
    view.instances[at].node.node().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn a_drained_nodes_instances_move_without_a_failed_request() {
    let fleet = Fleet::new(3, true).await;
    fleet.deploy("dga", 2).await.unwrap();
    let name = place(&fleet, 0).await;
    fleet.steady(true).await;
    let began = drain(&fleet, &name, 600, false).await;
    assert_eq!((began.total, began.moved), (1, 0));
    let view = drained(&fleet, &name).await;
    assert_eq!((view.total, view.moved, view.reasons.len()), (1, 1, 0));
    let view = fleet.ready().await;
    let there = |n: &NodeName| view.instances.iter().any(|i| i.node.node() == Some(n));
    assert!(view.ready == 2 && !there(&name), "{view:#?}");
    fleet.check();
    let kinds = kinds(&fleet.handle).await;
    for kind in ["node-draining", "node-drained"] {
        let told = kinds.iter().filter(|k| *k == kind).count();
        assert_eq!(told, 1, "{kind} in {kinds:?}");
    }
}

/// Whenever the coordinator ends, the next one goes on by the record.
#[tokio::test(start_paused = true)]
async fn a_drain_goes_on_after_the_coordinators_end_at_any_moment() {
    for after in [0, 3, 20, 55, 70, 110, 160] {
        let mut fleet = Fleet::new(3, true).await;
        fleet.deploy("dga", 2).await.unwrap();
        let name = place(&fleet, 0).await;
        fleet.steady(true).await;
        drain(&fleet, &name, 600, false).await;
        tokio::time::sleep(Duration::from_millis(after)).await;
        fleet.restart(Duration::from_secs(2)).await;
        drained(&fleet, &name).await;
        assert_eq!(fleet.ready().await.ready, 2);
        fleet.check();
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_spare_node_it_waits_out_the_deadline_over_a_restart() {
    let mut fleet = Fleet::new(2, true).await;
    fleet.deploy("dga", 2).await.unwrap();
    let name = place(&fleet, 0).await;
    fleet.steady(true).await;
    drain(&fleet, &name, 100, false).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let view = node(&fleet, &name).await.drain.unwrap();
    assert!(view.reasons[0].starts_with("no-spare-node"), "{view:?}");
    let status = fleet.handle.ask(Command::Status).await.unwrap();
    let subject = format!("node/{name}");
    assert_eq!(status.problems[0].subject, subject);
    fleet.restart(Duration::from_secs(20)).await;
    tokio::time::sleep(Duration::from_secs(35)).await;
    // The time without a coordinator does not count.
    assert_eq!(fleet.service().await.unwrap().ready, 2);
    assert!(node(&fleet, &name).await.drain.unwrap().drained.is_none());
    drained(&fleet, &name).await;
    let view = fleet.service().await.unwrap();
    assert_eq!(view.ready, 1, "{view:#?}");
    fleet.check();
    fleet.steady(false).await;

    // The other one is the last: only by force.
    let other = view.instances[0].node.node().unwrap().clone();
    drain(&fleet, &other, 1, false).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let view = node(&fleet, &other).await.drain.unwrap();
    assert!(
        view.stuck && view.reasons[0].contains("--force"),
        "{view:?}"
    );
    drain(&fleet, &other, 0, true).await;
    drained(&fleet, &other).await;
    assert!(fleet.running().is_empty());
    let uncordon = |reply| Command::CordonNode(name.clone(), false, reply);
    assert!(fleet.handle.ask(uncordon).await.unwrap().drain.is_none());
    fleet
        .until("one ready", |v| v.as_ref().is_ok_and(|v| v.ready == 1))
        .await
        .unwrap();
    fleet.check();
}

/// A node that is cut off serves whom it still reaches; what was replaced never takes traffic again,
/// whatever comes back in which order.
#[tokio::test(start_paused = true)]
async fn a_cut_off_node_serves_on_and_what_was_replaced_stays_out() {
    let mut fleet = Fleet::new(4, true).await;
    fleet.deploy("dga", 3).await.unwrap();
    let first = fleet.ready().await.instances.remove(0);
    let (id, name) = (first.status.id, first.node.node().unwrap().clone());
    let number: usize = name.as_str()[1..].parse().unwrap();
    fleet.steady(true).await;
    let routed = |fleet: &Fleet, id: &InstanceId| {
        let table = Arc::clone(&fleet.traffic.lock().unwrap().table);
        let route = &table.services[&web()];
        route
            .revisions
            .values()
            .any(|r| r.instances.contains_key(id))
    };
    fleet.cable(number, false);
    for _ in 0..25 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(routed(&fleet, &id), "out before its lease was over");
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(!routed(&fleet, &id));
    assert_eq!(fleet.ready().await.ready, 3);
    // Its module runs on, cut off, and is not asked any more.
    assert!(fleet.running().contains(&id));
    fleet.restart(Duration::from_secs(3)).await;
    fleet.cable(number, false);
    for step in 0..120 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(!routed(&fleet, &id), "step {step}");
        match step {
            20 => fleet.cable(number, true),
            60 => drop(fleet.scale(4).await.unwrap()),
            _ => {}
        }
    }
    // Its node is used again, by another identity.
    let view = fleet.ready().await;
    assert_eq!(view.ready, 4);
    let again = view.instances.iter().find(|i| i.node.node() == Some(&name));
    assert_ne!(again.unwrap().status.id, id);
    assert!(!fleet.running().contains(&id));
    fleet.check();
}
