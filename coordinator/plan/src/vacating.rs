//! Nodes that are drained: scripts and random happenings.

use std::collections::BTreeMap;

use berth_model::id::InstanceId;
use berth_model::instance::{Phase, Stage};
use berth_model::resources::Resources;
use proptest::prelude::*;

use crate::fleet::{Fleet, node, service};
use crate::{Action, Needs, Plan, Session, WaitReason};

const HOUR: u64 = 3_600_000;

fn settled(nodes: usize, replicas: u32) -> Fleet {
    let mut fleet = Fleet::exclusive(nodes);
    fleet.deploy("web", replicas, Needs::default());
    fleet.converge(|_, _| {});
    fleet
}

fn place_of(fleet: &Fleet, id: &str) -> String {
    let id: InstanceId = id.parse().unwrap();
    fleet.observed.instances[&id].place.to_string()
}

/// A healthy instance per wanted one, at every moment.
fn serves(fleet: &Fleet, least: usize) {
    assert!(fleet.healthy("web") >= least, "{:#?}", fleet.observed);
}

fn is_drained(fleet: &Fleet, name: &str) -> bool {
    let drain = fleet.observed.nodes[&node(name)].drain;
    drain.is_some_and(|drain| drain.drained)
}

fn on(fleet: &Fleet, name: &str) -> usize {
    let instances = fleet.observed.instances.values();
    instances
        .filter(|seen| seen.place.node() == Some(&node(name)))
        .count()
}

fn reasons(plan: &Plan) -> Vec<&WaitReason> {
    plan.waiting.iter().map(|w| &w.reason).collect()
}

#[test]
fn the_replacement_is_healthy_before_traffic_is_taken_off() {
    let mut fleet = settled(3, 2);
    fleet.drain("n0", HOUR, false);
    let plan = fleet.plan();
    let [Action::Create { id, place, .. }] = &plan.actions[..] else {
        panic!("{plan:#?}");
    };
    assert_eq!(
        (id.to_string(), place.to_string()),
        ("web.1.2.1".into(), "n2".into())
    );
    assert!(matches!(reasons(&plan)[..], [WaitReason::Moving { .. }]));
    fleet.apply(&plan);
    fleet.advance();
    assert!(fleet.plan().actions.is_empty());
    fleet.advance();
    let plan = fleet.plan();
    assert_eq!(
        plan.actions,
        [Action::Drain {
            id: "web.1.0.1".parse().unwrap(),
            why: "its node n0 is drained".into(),
        }]
    );
    fleet.converge(|fleet, _| serves(fleet, 2));
    assert!(is_drained(&fleet, "n0") && on(&fleet, "n0") == 0);
    assert_eq!(place_of(&fleet, "web.1.1.1"), "n1", "moved without cause");
    // Drained stays drained: nothing new comes.
    fleet.desired.services.get_mut("web").unwrap().replicas = 3;
    fleet.converge(|_, _| {});
    assert_eq!((on(&fleet, "n0"), fleet.healthy("web")), (0, 2));
    fleet.uncordon("n0");
    fleet.converge(|_, _| {});
    assert_eq!(fleet.healthy("web"), 3);
}

#[test]
fn without_a_spare_node_it_waits_and_at_the_deadline_goes_on_within_max_unavailable() {
    let mut fleet = settled(2, 2);
    let due = fleet.now.after(std::time::Duration::from_millis(HOUR));
    fleet.drain("n0", HOUR, false);
    let plan = fleet.plan();
    assert_eq!((plan.actions.len(), plan.wake), (0, Some(due)));
    let text = plan.waiting[0].reason.to_string();
    assert!(
        text.starts_with("no-spare-node: web.1.0.1 stays on node n0"),
        "{text}"
    );
    assert!(
        text.contains("2 nodes: 1 cordoned, 1 taken (exclusive)"),
        "{text}"
    );
    fleet.converge(|fleet, _| serves(fleet, 2));
    fleet.pass(HOUR);
    fleet.converge(|fleet, _| serves(fleet, 1));
    assert!(is_drained(&fleet, "n0"));
    let plan = fleet.plan();
    assert!(matches!(
        reasons(&plan)[..],
        [WaitReason::NoNode { missing: 1, .. }]
    ));
    // The first spare node gets what is missing.
    fleet.add_node("late", true, Resources::default());
    fleet.converge(|_, _| {});
    assert_eq!(fleet.healthy("web"), 2);
}

#[test]
fn more_than_max_unavailable_go_only_by_force() {
    let mut fleet = settled(2, 2);
    fleet.drain("n0", HOUR, false);
    fleet.drain("n1", HOUR, false);
    fleet.pass(HOUR);
    fleet.converge(|fleet, _| serves(fleet, 1));
    assert!(is_drained(&fleet, "n0") && !is_drained(&fleet, "n1"));
    let plan = fleet.plan();
    let kept = |r: &&WaitReason| {
        matches!(
            r,
            WaitReason::KeptServing {
                max_unavailable: 1,
                ..
            }
        )
    };
    let kept: Vec<String> = reasons(&plan)
        .into_iter()
        .filter(kept)
        .map(ToString::to_string)
        .collect();
    assert!(kept[0].contains("--force"), "{kept:?}");
    fleet.drain("n1", 0, true);
    fleet.converge(|_, _| {});
    assert!(is_drained(&fleet, "n1"));
    assert_eq!(fleet.healthy("web"), 0);
}

#[test]
fn with_max_unavailable_0_nothing_is_given_up() {
    let mut fleet = settled(1, 1);
    fleet
        .desired
        .services
        .get_mut("web")
        .unwrap()
        .max_unavailable = 0;
    fleet.drain("n0", 0, false);
    fleet.converge(|fleet, _| serves(fleet, 1));
    assert!(matches!(
        reasons(&fleet.plan())[..],
        [WaitReason::KeptServing {
            max_unavailable: 0,
            ..
        }]
    ));
    // Nor by a rollout.
    fleet.uncordon("n0");
    fleet.deploy("web", 1, Needs::default());
    fleet.converge(|fleet, _| serves(fleet, 1));
    let plan = fleet.plan();
    let needs_place = |r: &&WaitReason| matches!(r, WaitReason::RolloutNeedsPlace { .. });
    assert!(reasons(&plan).iter().any(needs_place), "{plan:#?}");
    fleet.add_node("late", true, Resources::default());
    fleet.converge(|fleet, _| serves(fleet, 1));
    assert_eq!(place_of(&fleet, "web.2.0.1"), "late");
}

#[test]
fn an_uncordon_in_the_midst_keeps_what_serves() {
    let mut fleet = settled(3, 2);
    fleet.drain("n0", HOUR, false);
    fleet.apply(&fleet.plan());
    fleet.advance();
    fleet.uncordon("n0");
    fleet.converge(|fleet, _| serves(fleet, 2));
    let left: Vec<String> = fleet
        .observed
        .instances
        .keys()
        .map(ToString::to_string)
        .collect();
    assert_eq!(left, ["web.1.0.1", "web.1.1.1"]);
}

#[test]
fn a_replacement_that_never_gets_healthy_keeps_the_old_one_until_the_deadline() {
    let mut fleet = settled(2, 1);
    fleet.broken.push((service("web"), 1));
    fleet.drain("n0", HOUR, false);
    fleet.converge(|fleet, _| serves(fleet, 1));
    assert!(matches!(
        reasons(&fleet.plan())[..],
        [WaitReason::Moving { .. }]
    ));
    fleet.pass(HOUR);
    fleet.converge(|_, _| {});
    assert!(is_drained(&fleet, "n0"));
}

#[test]
fn what_does_not_serve_leaves_as_soon_as_its_replacement_is_placed() {
    let mut fleet = settled(2, 1);
    for seen in fleet.observed.instances.values_mut() {
        seen.phase = Phase::Backoff;
    }
    fleet.drain("n0", HOUR, false);
    fleet.apply(&fleet.plan());
    let plan = fleet.plan();
    assert!(
        matches!(plan.actions[..], [Action::Drain { .. }]),
        "{plan:?}"
    );
}

#[test]
fn a_drained_node_that_is_lost_is_empty_when_it_is_back() {
    let mut fleet = settled(4, 2);
    fleet.drain("n0", HOUR, false);
    fleet.silence("n0");
    fleet.pass(30_000);
    fleet.converge(|_, _| {});
    assert_eq!(fleet.healthy("web"), 2);
    assert!(!is_drained(&fleet, "n0"), "what is fenced may still run");
    let seen = fleet.observed.nodes.get_mut(&node("n0")).unwrap();
    seen.session = Session::Connected;
    fleet.converge(|fleet, _| serves(fleet, 2));
    assert!(is_drained(&fleet, "n0"));
}

#[derive(Debug, Clone)]
enum Happening {
    Drain(u8, u64, bool),
    Uncordon(u8),
    Scale(u8, u32),
    Pass(u64),
    Step,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        2 => (0..6u8, 0..3 * HOUR, any::<bool>()).prop_map(|(n, ms, f)| Happening::Drain(n, ms, f)),
        1 => (0..6u8).prop_map(Happening::Uncordon),
        1 => (0..2u8, 0..4u32).prop_map(|(s, n)| Happening::Scale(s, n)),
        1 => (0..HOUR).prop_map(Happening::Pass),
        6 => Just(Happening::Step),
    ]
}

fn healthy_by_service(fleet: &Fleet) -> BTreeMap<String, usize> {
    let names = fleet.desired.services.keys();
    names
        .map(|name| (name.to_string(), fleet.healthy(name.as_str())))
        .collect()
}

/// Nothing is put on a node that takes nothing, and nothing is given up that is not allowed to be.
fn check(fleet: &Fleet, plan: &Plan, scaled_down: bool) {
    let nodes = &fleet.observed.nodes;
    let mut after = fleet.clone();
    after.apply(plan);
    let (before, after) = (healthy_by_service(fleet), healthy_by_service(&after));
    for action in &plan.actions {
        if let Action::Create { place, .. } = action {
            assert!(!nodes[place.node().unwrap()].cordoned, "{plan:#?}");
        }
    }
    let late = nodes.values().filter_map(|n| n.drain);
    let late: Vec<_> = late.filter(|drain| fleet.now >= drain.due).collect();
    for (name, record) in &fleet.desired.services {
        let (before, after) = (before[name.as_str()], after[name.as_str()]);
        let wanted = record.replicas as usize;
        if after == before || scaled_down || late.iter().any(|d| d.force) {
            continue;
        }
        let least = if late.is_empty() {
            wanted
        } else {
            wanted.saturating_sub(record.max_unavailable as usize)
        };
        assert!(after >= least, "{name}: {before} to {after}: {plan:#?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Before a deadline no service is made to serve less than it shall, after it no less than
    /// `max_unavailable` allows; and in the end every drained node with room elsewhere is empty.
    #[test]
    fn drains_take_nothing_away_that_they_must_not(
        happenings in prop::collection::vec(happening(), 1..50),
    ) {
        let mut fleet = Fleet::exclusive(4);
        let large = Resources { memory_bytes: 1 << 40, ..Resources::default() };
        for name in ["n4", "n5"] {
            fleet.add_node(name, false, large);
        }
        for name in ["s0", "s1"] {
            fleet.deploy(name, 3, Needs::default());
        }
        fleet.converge(|_, _| ());
        for what in &happenings {
            let mut scaled = false;
            match what {
                Happening::Drain(n, ms, force) => fleet.drain(&format!("n{n}"), *ms, *force),
                Happening::Uncordon(n) => fleet.uncordon(&format!("n{n}")),
                Happening::Scale(s, n) => {
                    scaled = true;
                    let record = fleet.desired.services.get_mut(&service(&format!("s{s}")));
                    record.unwrap().replicas = *n;
                }
                Happening::Pass(ms) => fleet.pass(*ms),
                Happening::Step => fleet.advance(),
            }
            let plan = fleet.plan();
            prop_assert_eq!(&plan, &fleet.plan());
            check(&fleet, &plan, scaled);
            fleet.apply(&plan);
        }
        // With room for all, every drain ends by itself.
        fleet.add_node("spare", false, large);
        fleet.converge(|fleet, plan| check(fleet, plan, false));
        for (name, seen) in &fleet.observed.nodes {
            if let Some(drain) = seen.drain {
                prop_assert!(drain.drained, "{} is not empty: {:#?}", name, fleet.plan());
            }
        }
        for (name, record) in &fleet.desired.services {
            prop_assert_eq!(fleet.healthy(name.as_str()), record.replicas as usize);
        }
        prop_assert!(fleet.observed.instances.values().all(|seen| seen.stage == Stage::Running));
    }
}
