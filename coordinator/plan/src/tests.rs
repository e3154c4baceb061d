//! What a plan does in the situations that matter, one by one.

use berth_model::id::InstanceId;
use berth_model::instance::{Phase, Stage};
use berth_model::node::RuntimeKind;

use crate::fleet::{Fleet, node, service};
use crate::{Action, Needs, Session, WaitReason};

fn ids(fleet: &Fleet) -> Vec<String> {
    fleet
        .observed
        .instances
        .keys()
        .map(InstanceId::to_string)
        .collect()
}

#[test]
fn a_deploy_fills_the_free_nodes_and_says_what_is_missing() {
    let mut fleet = Fleet::exclusive(2);
    fleet.deploy("web", 3, Needs::default());
    fleet.converge(|_, _| ());
    assert_eq!(ids(&fleet), ["web.1.0.1", "web.1.1.1"]);
    assert_eq!(fleet.healthy("web"), 2);
    let waiting = fleet.plan().waiting;
    assert_eq!(
        waiting[0].reason.to_string(),
        "1 instance has no node: 2 nodes: 2 taken (exclusive); join another node \
         (`berth node token create`), or scale down or delete a service"
    );
}

#[test]
fn a_runtime_that_does_not_work_is_waited_for() {
    let mut fleet = Fleet::exclusive(1);
    let docker = RuntimeKind::Docker;
    let needs = Needs {
        runtime: docker,
        ..Needs::default()
    };
    fleet.deploy("web", 1, needs);
    let reason = |fleet: &Fleet| fleet.plan().waiting[0].reason.to_string();
    assert!(reason(&fleet).contains("1 without the docker runtime"));
    let node = fleet.observed.nodes.values_mut().next().unwrap();
    node.broken = vec![docker];
    let told = reason(&fleet);
    assert!(
        told.contains("1 whose docker does not work now; `berth node list` says"),
        "{told}"
    );
    let node = fleet.observed.nodes.values_mut().next().unwrap();
    (node.broken, node.runtimes) = (Vec::new(), vec![docker]);
    fleet.converge(|_, _| ());
    assert_eq!(ids(&fleet), ["web.1.0.1"]);
}

#[test]
fn an_instance_stops_only_when_every_gateway_has_let_go() {
    let mut fleet = Fleet::exclusive(2);
    fleet.deploy("web", 2, Needs::default());
    fleet.converge(|_, _| ());
    fleet
        .desired
        .services
        .get_mut(&service("web"))
        .unwrap()
        .replicas = 1;
    fleet
        .desired
        .services
        .get_mut(&service("web"))
        .unwrap()
        .revisions
        .get_mut(&1)
        .unwrap()
        .replicas = 1;
    let plan = fleet.plan();
    let id: InstanceId = "web.1.1.1".parse().unwrap();
    assert_eq!(
        plan.actions,
        [Action::Drain {
            id: id.clone(),
            why: "scaled down".into()
        }]
    );
    fleet.apply(&plan);

    // The gateway has not taken the new table.
    let plan = fleet.plan();
    assert!(plan.actions.is_empty());
    assert!(
        matches!(&plan.waiting[0].reason, WaitReason::Draining { .. }),
        "{plan:?}"
    );
    assert!(
        plan.wake.is_some(),
        "the drain deadline must wake the planner"
    );

    // It has, but a request is in flight.
    fleet.advance();
    fleet
        .observed
        .gateways
        .values_mut()
        .next()
        .unwrap()
        .in_flight
        .insert(id.clone(), 1);
    assert!(fleet.plan().actions.is_empty());

    fleet
        .observed
        .gateways
        .values_mut()
        .next()
        .unwrap()
        .in_flight
        .clear();
    assert_eq!(
        fleet.plan().actions,
        [Action::Stop {
            id,
            deadline: false
        }]
    );
    fleet.converge(|_, _| ());
    assert_eq!(ids(&fleet), ["web.1.0.1"]);
}

#[test]
fn the_drain_deadline_and_a_silent_gateway_end_the_wait() {
    let mut fleet = Fleet::exclusive(1);
    fleet.deploy("web", 1, Needs::default());
    fleet.converge(|_, _| ());
    let gateway = fleet.observed.gateways.keys().next().unwrap().clone();
    fleet.deaf.push(gateway.clone());
    fleet
        .desired
        .services
        .get_mut(&service("web"))
        .unwrap()
        .deleting = true;
    let plan = fleet.plan();
    fleet.apply(&plan);
    fleet.advance();
    assert!(fleet.plan().actions.is_empty());
    let mut late = fleet.clone();
    late.pass(30_000);
    assert!(matches!(
        late.plan().actions[0],
        Action::Stop { deadline: true, .. }
    ));

    fleet.observed.gateways.get_mut(&gateway).unwrap().session = Session::Silent(fleet.now);
    fleet.pass(15_000);
    let plan = fleet.plan();
    assert_eq!(plan.actions[0], Action::ForgetGateway { gateway });
    assert!(matches!(
        plan.actions[1],
        Action::Stop {
            deadline: false,
            ..
        }
    ));
}

#[test]
fn a_new_revision_takes_spare_places_first() {
    let mut fleet = Fleet::exclusive(3);
    fleet.deploy("web", 2, Needs::default());
    fleet.converge(|_, _| ());
    fleet.deploy("web", 2, Needs::default());
    fleet.converge(|fleet, _| assert!(fleet.healthy("web") >= 2));
    assert_eq!(fleet.healthy("web"), 2);
    assert!(
        ids(&fleet).iter().all(|id| id.starts_with("web.2.")),
        "{:?}",
        ids(&fleet)
    );
    assert_eq!(fleet.desired.services[&service("web")].revisions.len(), 1);
}

#[test]
fn without_a_spare_place_one_gives_up_its_own() {
    let mut fleet = Fleet::exclusive(2);
    fleet.deploy("web", 2, Needs::default());
    fleet.converge(|_, _| ());
    fleet.deploy("web", 2, Needs::default());
    fleet.converge(|fleet, _| assert!(fleet.healthy("web") >= 1));
    assert!(
        ids(&fleet).iter().all(|id| id.starts_with("web.2.")),
        "{:?}",
        ids(&fleet)
    );
}

#[test]
fn a_broken_revision_stops_the_rollout_and_a_fixed_one_replaces_it() {
    let mut fleet = Fleet::exclusive(3);
    fleet.deploy("web", 3, Needs::default());
    fleet.converge(|_, _| ());
    let bad = fleet.deploy("web", 3, Needs::default());
    fleet.broken.push((service("web"), bad));
    fleet.converge(|fleet, _| assert!(fleet.healthy("web") >= 2));
    assert_eq!(fleet.healthy("web"), 2);
    let waits = fleet.plan().waiting.iter().any(|w| {
        w.reason
            == WaitReason::RolloutWaits {
                revision: 2,
                healthy: 0,
                instances: 1,
            }
    });
    assert!(waits, "{:?}", fleet.plan().waiting);
    fleet.deploy("web", 3, Needs::default());
    fleet.converge(|fleet, _| assert!(fleet.healthy("web") >= 2));
    assert!(
        ids(&fleet).iter().all(|id| id.starts_with("web.3.")),
        "{:?}",
        ids(&fleet)
    );
}

#[test]
fn a_lost_nodes_instances_move_and_the_others_stay() {
    let mut fleet = Fleet::exclusive(4);
    fleet.deploy("web", 3, Needs::default());
    fleet.converge(|_, _| ());
    let before = fleet.observed.instances.clone();
    fleet.silence("n0");
    assert!(fleet.plan().actions.is_empty(), "the lease holds");
    assert_eq!(fleet.plan().wake.unwrap().0, fleet.now.0 + 30_000);
    fleet.pass(29_999);
    assert!(fleet.plan().actions.is_empty(), "the lease holds");
    fleet.pass(1);
    fleet.converge(|_, _| ());
    assert_eq!(fleet.healthy("web"), 3);
    for (id, seen) in before
        .iter()
        .filter(|(_, seen)| seen.place != node("n0").into())
    {
        assert_eq!(fleet.observed.instances.get(id), Some(seen));
    }
    // The fenced one holds its node until the node is back and has let go of it.
    assert!(
        fleet
            .observed
            .instances
            .values()
            .any(|seen| seen.stage == Stage::Lost)
    );
    fleet.observed.nodes.get_mut(&node("n0")).unwrap().session = Session::Connected;
    fleet.converge(|_, _| ());
    assert!(
        fleet
            .observed
            .instances
            .values()
            .all(|seen| seen.stage == Stage::Running)
    );
    assert!(!fleet.observed.nodes[&node("n0")].lost);
}

#[test]
fn many_nodes_silent_at_once_replace_nothing() {
    let mut fleet = Fleet::exclusive(6);
    fleet.deploy("web", 4, Needs::default());
    fleet.converge(|_, _| ());
    for name in ["n0", "n1"] {
        fleet.silence(name);
    }
    fleet.pass(40_000);
    let plan = fleet.plan();
    assert!(plan.actions.is_empty(), "{plan:?}");
    assert_eq!(
        plan.waiting[0].reason,
        WaitReason::MassLoss {
            silent: 2,
            nodes: 6
        }
    );
}

#[test]
fn a_coordinator_that_was_away_replaces_nothing_that_runs() {
    let mut fleet = Fleet::exclusive(3);
    fleet.deploy("web", 3, Needs::default());
    fleet.converge(|_, _| ());
    // Restarted much later: no node has been heard of yet, the leases start anew.
    fleet.pass(3_600_000);
    fleet.observed.started = fleet.now;
    for seen in fleet.observed.nodes.values_mut() {
        seen.session = Session::NotYet;
    }
    fleet.pass(29_999);
    assert!(fleet.plan().actions.is_empty());
}

#[test]
fn a_deleted_service_goes_when_its_last_instance_has_stopped() {
    let mut fleet = Fleet::exclusive(2);
    fleet.deploy("web", 2, Needs::default());
    fleet.converge(|_, _| ());
    fleet
        .desired
        .services
        .get_mut(&service("web"))
        .unwrap()
        .deleting = true;
    fleet.converge(|_, _| ());
    assert!(fleet.desired.services.is_empty() && fleet.observed.instances.is_empty());
}

#[test]
fn scaling_during_a_rollout_reaches_the_new_number_of_the_new_revision() {
    for replicas in [1, 2, 5] {
        let mut fleet = Fleet::exclusive(6);
        fleet.deploy("web", 3, Needs::default());
        fleet.converge(|_, _| ());
        fleet.deploy("web", 3, Needs::default());
        for _ in 0..3 {
            let plan = fleet.plan();
            fleet.apply(&plan);
            fleet.advance();
        }
        fleet
            .desired
            .services
            .get_mut(&service("web"))
            .unwrap()
            .replicas = replicas;
        fleet.converge(|_, _| ());
        assert_eq!(fleet.healthy("web"), replicas as usize);
        assert!(
            ids(&fleet).iter().all(|id| id.starts_with("web.2.")),
            "{:?}",
            ids(&fleet)
        );
    }
}

#[test]
fn after_a_restore_nothing_is_done_until_the_fleet_has_been_seen() {
    let mut fleet = Fleet::exclusive(1);
    fleet.deploy("web", 1, Needs::default());
    fleet.observed.settling = true;
    let plan = fleet.plan();
    assert!(plan.actions.is_empty());
    assert_eq!(plan.waiting[0].reason, WaitReason::Settling);
}

#[test]
fn an_instance_of_an_unknown_service_is_drained() {
    let mut fleet = Fleet::exclusive(1);
    fleet.deploy("web", 1, Needs::default());
    fleet.converge(|_, _| ());
    fleet.desired.services.clear();
    fleet.converge(|_, _| ());
    assert!(fleet.observed.instances.is_empty());
    assert_eq!(
        fleet
            .observed
            .instances
            .values()
            .filter(|s| s.phase == Phase::Healthy)
            .count(),
        0
    );
}
