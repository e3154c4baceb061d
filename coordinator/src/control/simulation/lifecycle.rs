//! Deploy, scale, replace, delete, lose: with traffic all the time.

use std::time::Duration;

use berth_model::api::ServiceState;
use berth_model::instance::Phase;

use super::fleet::{Fleet, web};
use crate::control::Command;
use crate::control::testing::Fault;

#[tokio::test(start_paused = true)]
async fn a_service_comes_scales_and_goes_without_a_failed_request() {
    let fleet = Fleet::new(3, true).await;
    let view = fleet.deploy("dga@1.0.0", 2).await.unwrap();
    assert_eq!(
        (view.revision, view.replicas, view.instances.len()),
        (1, 2, 2)
    );
    assert_eq!(view.state, ServiceState::Progressing);
    let view = fleet.ready().await;
    assert_eq!((view.ready, view.reasons.len()), (2, 0));
    fleet.steady(true).await;
    fleet.scale(3).await.unwrap();
    assert_eq!(fleet.ready().await.ready, 3);
    fleet.scale(1).await.unwrap();
    let view = fleet.ready().await;
    assert_eq!((view.ready, view.instances.len()), (1, 1));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(fleet.running().len(), 1);
    assert!(fleet.traffic.lock().unwrap().sent > 100);
    fleet.steady(false).await;
    let view = fleet
        .handle
        .ask(|reply| Command::Delete(web(), reply))
        .await
        .unwrap();
    assert_eq!(view.state, ServiceState::Deleting);
    let refused = fleet.deploy("dga", 1).await.unwrap_err();
    assert_eq!(refused.status, 409);
    let _ = fleet.until("gone", Result::is_err).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(fleet.running().is_empty());
    fleet.check();
    // A new service of that name goes on counting revisions: no identity is ever used twice.
    let view = fleet.deploy("dga", 1).await.unwrap();
    assert_eq!(view.revision, 2);
    fleet.ready().await;
    fleet.check();
}

#[tokio::test(start_paused = true)]
async fn version_2_replaces_version_1_on_spare_places() {
    let fleet = Fleet::new(3, true).await;
    fleet.deploy("dga@1.0.0", 2).await.unwrap();
    fleet.ready().await;
    fleet.steady(true).await;
    fleet.deploy("dga@2.0.0", 2).await.unwrap();
    let view = fleet.ready().await;
    assert_eq!((view.revision, view.revisions.len(), view.ready), (2, 1, 2));
    assert!(fleet.running().iter().all(|id| id.slot.revision == 2));
    fleet.check();
}

#[tokio::test(start_paused = true)]
async fn version_2_replaces_version_1_without_a_spare_place() {
    let fleet = Fleet::new(2, true).await;
    fleet.deploy("dga@1.0.0", 2).await.unwrap();
    fleet.ready().await;
    fleet.steady(true).await;
    fleet.deploy("dga@2.0.0", 2).await.unwrap();
    let view = fleet.ready().await;
    assert_eq!((view.revision, view.ready), (2, 2));
    fleet.check();
}

#[tokio::test(start_paused = true)]
async fn a_version_that_never_gets_healthy_leaves_the_old_one_serving() {
    let fleet = Fleet::new(3, true).await;
    fleet.deploy("dga@1.0.0", 2).await.unwrap();
    fleet.ready().await;
    fleet.steady(true).await;
    for machine in &fleet.machines {
        machine.lock().unwrap().broken_version = Some("2.0.0".parse().unwrap());
    }
    fleet.deploy("dga@2.0.0", 2).await.unwrap();
    tokio::time::sleep(Duration::from_secs(120)).await;
    let view = fleet.service().await.unwrap();
    assert_eq!(view.ready, 2, "{view:#?}");
    assert!(
        view.reasons
            .iter()
            .any(|r| r.contains("revision 2 has 0 of 1")),
        "{view:#?}"
    );
    // Back to the old one: a new revision that the spare place can take.
    fleet.deploy("dga@1.0.0", 2).await.unwrap();
    let view = fleet.ready().await;
    assert_eq!(view.revision, 3);
    fleet.check();
}

#[tokio::test(start_paused = true)]
async fn the_same_deploy_again_changes_nothing() {
    let fleet = Fleet::new(2, true).await;
    fleet.deploy("dga@1.0.0", 1).await.unwrap();
    fleet.ready().await;
    let revision = fleet.disk.lock().unwrap().clone();
    let view = fleet.deploy("dga@#1", 1).await.unwrap();
    assert_eq!((view.revision, view.state), (1, ServiceState::Ready));
    tokio::time::sleep(Duration::from_secs(30)).await;
    // Nothing of all the heartbeats, reports and ticks was written either.
    assert_eq!(fleet.store_revision(), revision.revision());
    let view = fleet.deploy("dga@1.0.0", 2).await.unwrap();
    assert_eq!((view.revision, view.replicas), (1, 2));
    fleet.ready().await;
    fleet.check();
}

#[tokio::test(start_paused = true)]
async fn too_few_nodes_wait_with_a_reason_and_go_on_when_one_joins() {
    let mut fleet = Fleet::new(1, true).await;
    fleet.deploy("dga", 2).await.unwrap();
    let view = fleet
        .until("one ready", |v| v.as_ref().is_ok_and(|v| v.ready == 1))
        .await
        .unwrap();
    assert_eq!(view.state, ServiceState::Degraded);
    assert!(
        view.reasons[0].contains("node token create"),
        "{:?}",
        view.reasons
    );
    let status = fleet.handle.ask(Command::Status).await.unwrap();
    assert_eq!(status.problems[0].subject, "service/web");
    fleet.add_node("late").await;
    assert_eq!(fleet.ready().await.ready, 2);
}

#[tokio::test(start_paused = true)]
async fn a_lost_node_is_replaced_and_what_it_ran_is_fenced() {
    let fleet = Fleet::new(4, true).await;
    fleet.deploy("dga", 3).await.unwrap();
    let before = fleet.ready().await;
    let victim = before.instances[0].node.to_string();
    let number: usize = victim[1..].parse().unwrap();
    fleet.cable(number, false);
    tokio::time::sleep(Duration::from_secs(25)).await;
    let view = fleet.service().await.unwrap();
    assert_eq!(
        view.instances.len(),
        3,
        "replaced before its lease was over"
    );
    assert_eq!(view.ready, 3);
    // Its instance still serves: a silent node stays in the table.
    fleet.check();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let view = fleet.ready().await;
    assert_eq!(view.ready, 3);
    let status = fleet.handle.ask(Command::Status).await.unwrap();
    assert_eq!(status.nodes["lost"], 1);
    assert_eq!(status.problems[0].subject, format!("node/{victim}"));
    fleet.cable(number, true);
    fleet
        .until("fenced instance forgotten", |v| {
            v.as_ref().is_ok_and(|v| v.instances.len() == 3)
        })
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(fleet.running().len(), 3);
    fleet.check();
    let (events, _) = fleet
        .handle
        .ask(|reply| Command::Events(0, reply))
        .await
        .unwrap();
    let kinds: Vec<&str> = events.iter().map(|e| e.kind.as_str()).collect();
    for kind in ["node-silent", "node-lost", "instance-lost", "node-returned"] {
        assert!(kinds.contains(&kind), "{kind} in {kinds:?}");
    }
    let numbers: Vec<u64> = events.iter().map(|e| e.seq).collect();
    assert!(numbers.windows(2).all(|w| w[0] + 1 == w[1]));
}

#[tokio::test(start_paused = true)]
async fn many_nodes_silent_at_once_are_not_replaced() {
    let fleet = Fleet::new(4, true).await;
    fleet.deploy("dga", 2).await.unwrap();
    fleet.ready().await;
    for node in 0..3 {
        fleet.cable(node, false);
    }
    tokio::time::sleep(Duration::from_secs(90)).await;
    let view = fleet.service().await.unwrap();
    assert_eq!((view.instances.len(), view.ready), (2, 2));
    assert!(
        view.reasons.iter().any(|r| r.contains("mass-loss")),
        "{:?}",
        view.reasons
    );
    let status = fleet.handle.ask(Command::Status).await.unwrap();
    assert_eq!(status.problems[0].subject, "nodes");
    for node in 0..3 {
        fleet.cable(node, true);
    }
    fleet.ready().await;
    fleet.check();
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_changes_and_disturbs_nothing() {
    let fleet = Fleet::new(2, true).await;
    fleet.deploy("dga", 1).await.unwrap();
    fleet.ready().await;
    fleet.steady(true).await;
    fleet.fault(Fault {
        full: true,
        ..Fault::default()
    });
    let refused = fleet.scale(2).await.unwrap_err();
    assert_eq!(refused.status, 503);
    assert!(refused.detail.contains("full"), "{refused}");
    let view = fleet.service().await.unwrap();
    assert_eq!((view.replicas, view.ready), (1, 1));
    let status = fleet.handle.ask(Command::Status).await.unwrap();
    assert!(status.problems[0].message.contains("full"), "{status:?}");
    assert_eq!(fleet.handle.ready().await.unwrap_err().status, 503);
    fleet.fault(Fault::default());
    tokio::time::sleep(Duration::from_secs(3)).await;
    let status = fleet.handle.ask(Command::Status).await.unwrap();
    assert!(status.problems.is_empty(), "{status:?}");
    fleet.handle.ready().await.unwrap();
    fleet.scale(2).await.unwrap();
    assert_eq!(fleet.ready().await.ready, 2);
    assert_eq!(fleet.running().len(), 2);
    let healthy = fleet.service().await.unwrap().instances;
    assert!(healthy.iter().all(|i| i.status.phase == Phase::Healthy));
    fleet.check();
}

#[tokio::test(start_paused = true)]
async fn requests_in_flight_hold_up_a_stop_until_the_deadline() {
    let fleet = Fleet::new(2, true).await;
    fleet.deploy("dga", 2).await.unwrap();
    let busy = fleet.ready().await.instances[1].status.id.clone();
    fleet.traffic.lock().unwrap().in_flight = vec![(busy.clone(), 3)];
    tokio::time::sleep(Duration::from_secs(2)).await;
    fleet.scale(1).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let view = fleet.service().await.unwrap();
    let waits = format!("{busy} drains: waits for 3 requests in flight at gateway g1");
    assert!(view.reasons.contains(&waits), "{:?}", view.reasons);
    assert!(fleet.running().contains(&busy));
    // One more second than it takes the gateway to tell.
    fleet.traffic.lock().unwrap().in_flight.clear();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!fleet.running().contains(&busy));

    let busy = fleet.running().remove(0);
    fleet.traffic.lock().unwrap().in_flight = vec![(busy.clone(), 1)];
    tokio::time::sleep(Duration::from_secs(2)).await;
    fleet.scale(0).await.unwrap();
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert!(fleet.running().contains(&busy));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(fleet.running().is_empty());
    fleet.check();
}
