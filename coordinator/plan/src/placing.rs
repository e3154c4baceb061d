//! Every placement is the one that a look at every node would give, by the order that `docs/placement.md` tells.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use berth_model::digest::PackageDigest;
use berth_model::id::{NodeName, ServiceName};
use berth_model::instance::{Phase, Stage};
use berth_model::node::RuntimeKind;
use berth_model::resources::Resources;
use proptest::prelude::*;

use crate::fleet::{Fleet, node, service};
use crate::{Action, InstanceSeen, Needs, NodeSeen, Session};

const GIB: u64 = 1 << 30;

#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) replicas: u32,
    pub(crate) needs: Needs,
}

pub(crate) fn digest(n: u8) -> PackageDigest {
    PackageDigest::from_bytes([n; 32])
}

/// A node: a few zones and racks, some nodes without; small and large, some exclusive, some with GPUs.
pub(crate) fn machine(i: usize) -> impl Strategy<Value = NodeSeen> {
    let labels = (0..4u8, 0..12u8, 0..3u8);
    let figures = (1..5u64, 1..5u64, 0..3u32);
    let flags = (0..5u8, 0..12u8, 0..12u8);
    let packages = prop::collection::btree_set(0..3u8, 0..3);
    (labels, figures, flags, packages).prop_map(move |(labels, figures, flags, packages)| {
        let (zone, rack, pool) = labels;
        let (cores, memory, gpus) = figures;
        let mut named = BTreeMap::new();
        for (key, value, some) in [("zone", zone, 3), ("rack", rack, 11), ("pool", pool, 2)] {
            if value < some {
                named.insert(key.to_owned(), format!("{key}-{value}"));
            }
        }
        NodeSeen {
            exclusive: flags.0 == 0,
            cordoned: flags.1 == 0,
            disk_full: flags.2 == 0,
            capacity: Resources {
                cpu_millis: cores * 2_000,
                memory_bytes: memory * 8 * GIB + i as u64,
                gpus,
                disk_bytes: 100 * GIB,
            },
            gpus: (0..gpus).map(|g| format!("GPU-{i}-{g}")).collect(),
            labels: named,
            runtimes: vec![RuntimeKind::Process],
            session: Session::Connected,
            packages: Arc::new(packages.into_iter().map(digest).collect()),
            ..NodeSeen::default()
        }
    })
}

pub(crate) fn wanted() -> impl Strategy<Value = Wanted> {
    let claims = (0..4u64, 0..4u64, 0..6u32);
    let spread = prop_oneof![
        3 => Just(vec!["zone", "rack", "host"]),
        1 => Just(vec!["rack"]),
        1 => Just(vec![]),
    ];
    (1..9u32, claims, spread, 0..3u8, prop::bool::weighted(0.3)).prop_map(
        |(replicas, (cores, memory, gpus), spread, package, pool)| {
            let labels = pool.then(|| ("pool".to_owned(), "pool-0".to_owned()));
            let needs = Needs {
                resources: Resources {
                    cpu_millis: cores * 700,
                    memory_bytes: memory * 3 * GIB,
                    gpus: gpus.saturating_sub(4),
                    disk_bytes: 0,
                },
                labels: labels.into_iter().collect(),
                spread: spread.into_iter().map(str::to_owned).collect(),
                package: Some(digest(package)),
                ..Needs::default()
            };
            Wanted { replicas, needs }
        },
    )
}

pub(crate) fn fleet() -> impl Strategy<Value = Fleet> {
    let nodes = (1..24usize).prop_flat_map(|n| (0..n).map(machine).collect::<Vec<_>>());
    nodes.prop_map(|nodes| {
        let mut fleet = Fleet::exclusive(0);
        for (i, seen) in nodes.into_iter().enumerate() {
            fleet.observed.nodes.insert(node(&format!("n{i:02}")), seen);
        }
        fleet
    })
}

/// What is left of a node, with its free GPUs; none if it can take nothing more.
fn left(fleet: &Fleet, name: &NodeName) -> Option<(Resources, u32)> {
    let seen = &fleet.observed.nodes[name];
    let here = fleet.observed.instances.values();
    let here = here.filter(|i| i.place.node() == Some(name) && i.phase != Phase::Stopped);
    let (mut free, mut held, mut gpus) = (seen.capacity, 0, BTreeSet::new());
    for instance in here {
        free = free.less(&instance.reserved);
        for gpu in &instance.gpus {
            assert!(gpus.insert(gpu.clone()), "{gpu} was given twice");
            assert!(seen.gpus.contains(gpu), "{gpu} is not of {name}");
        }
        held += 1;
    }
    free.gpus = seen.capacity.gpus - u32::try_from(gpus.len()).unwrap();
    (!seen.exclusive || held == 0).then_some((free, held))
}

type Score = (
    (u32, Vec<u32>),
    (u32, bool, u64),
    bool,
    Reverse<u8>,
    NodeName,
);

/// The order of preference, read from the documentation and looked up by brute force.
fn score(fleet: &Fleet, service: &ServiceName, needs: &Needs, name: &NodeName) -> Option<Score> {
    let nodes = &fleet.observed.nodes;
    let seen = &nodes[name];
    let has_package = seen.packages.contains(&needs.package.unwrap());
    let labels = needs.labels.iter();
    if seen.cordoned
        || (seen.disk_full && !has_package)
        || labels.clone().any(|(k, v)| seen.labels.get(k) != Some(v))
    {
        return None;
    }
    let (free, held) = left(fleet, name)?;
    let wanted = &needs.resources;
    if !wanted.fits(&free) {
        return None;
    }
    let mine = fleet.observed.instances.iter();
    let mine = mine.filter(|(id, i)| id.slot.service == *service && i.phase != Phase::Stopped);
    let mine: Vec<(&NodeName, Stage)> = mine
        .filter_map(|(_, i)| Some((i.place.node()?, i.stage)))
        .collect();
    let on = mine.iter().filter(|(other, _)| *other == name).count();
    let path = |name: &NodeName, depth: usize| -> Vec<Option<String>> {
        let keys = needs.spread.iter().take(depth);
        keys.map(|key| nodes[name].labels.get(key).cloned())
            .collect()
    };
    let in_domain = |depth: usize| {
        let live = mine.iter().filter(|(_, stage)| *stage == Stage::Running);
        let same = live.filter(|(other, _)| path(other, depth) == path(name, depth));
        u32::try_from(same.count()).unwrap()
    };
    let domains = (1..=needs.spread.len()).map(in_domain).collect();
    let (memory, cpu) = (free.memory_bytes / (256 << 20), free.cpu_millis * 16 / 1000);
    let amount = match (wanted.cpu_millis, wanted.memory_bytes) {
        (0, 0) => held.into(),
        (0, _) => memory,
        _ => memory.min(cpu),
    };
    let fit = (free.gpus, !seen.exclusive, amount);
    let on = u32::try_from(on).unwrap();
    Some(((on, domains), fit, !has_package, Reverse(0), name.clone()))
}

/// Carries out one plan action by action, and looks at every node before each placement.
fn check(fleet: &mut Fleet) {
    let plan = fleet.plan();
    for action in &plan.actions {
        if let Action::Create { id, place, .. } = action {
            let key = (id.slot.service.clone(), id.slot.revision);
            let needs = &fleet.desired.needs[&key];
            let names = fleet.observed.nodes.keys();
            let best = names.filter_map(|name| score(fleet, &id.slot.service, needs, name));
            let best = best.min().map(|score| score.4);
            assert_eq!(place.node(), best.as_ref(), "{id} with {needs:?}");
        }
        let one = crate::Plan {
            actions: vec![action.clone()],
            ..crate::Plan::default()
        };
        fleet.apply(&one);
    }
    for name in fleet.observed.nodes.keys() {
        left(fleet, name);
    }
    // What waits for a node has none indeed, and every node is told of.
    for waiting in &fleet.plan().waiting {
        let crate::WaitReason::NoNode { rejected, .. } = &waiting.reason else {
            continue;
        };
        let needs = &fleet.desired.needs[&(waiting.service.clone(), 1)];
        let mut names = fleet.observed.nodes.keys();
        assert!(names.all(|name| score(fleet, &waiting.service, needs, name).is_none()));
        let told: u32 = rejected.iter().map(|(n, _)| n).sum();
        assert_eq!(told as usize, fleet.observed.nodes.len());
    }
}

fn seen(fleet: &mut Fleet, which: usize) -> Option<&mut InstanceSeen> {
    let n = fleet.observed.instances.len().max(1);
    fleet.observed.instances.values_mut().nth(which % n)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// The search in ordered sets finds what a look at every node finds, for whole services at a time, while
    /// instances drain and stop, and domains fill up. No node is over its capacity, no GPU is given twice.
    #[test]
    fn the_best_node_is_the_best_of_all(
        start in fleet(),
        wanted in prop::collection::vec(wanted(), 1..5),
        leaving in prop::collection::vec((0..64usize, prop::bool::ANY), 0..6),
        more in 0..6u32,
    ) {
        let mut fleet = start;
        for (i, wanted) in wanted.iter().enumerate() {
            fleet.deploy(&format!("s{i}"), wanted.replicas, wanted.needs.clone());
            check(&mut fleet);
        }
        for (which, stopped) in leaving {
            if let Some(seen) = seen(&mut fleet, which) {
                seen.stage = Stage::Stopping;
                seen.phase = if stopped { Phase::Stopped } else { Phase::Healthy };
            }
            check(&mut fleet);
        }
        let record = fleet.desired.services.get_mut(&service("s0")).unwrap();
        record.replicas += more;
        check(&mut fleet);
    }
}

#[test]
fn two_of_a_service_share_a_node_only_when_no_other_fits() {
    let mut fleet = Fleet::exclusive(0);
    let capacity = Resources {
        memory_bytes: 64 * GIB,
        ..Resources::default()
    };
    for (name, zone) in [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b")] {
        fleet.add_node(name, false, capacity);
        let seen = fleet.observed.nodes.get_mut(&node(name)).unwrap();
        seen.labels.insert("zone".to_owned(), zone.to_owned());
    }
    let needs = Needs {
        spread: vec!["zone".to_owned()],
        ..Needs::default()
    };
    fleet.deploy("web", 5, needs);
    fleet.converge(|_, _| {});
    let mut on: BTreeMap<String, u32> = BTreeMap::new();
    for seen in fleet.observed.instances.values() {
        *on.entry(seen.place.to_string()).or_default() += 1;
    }
    // One on each, whatever the zones; the fifth goes to the zone that has fewer.
    let expected = [("a1", 1), ("a2", 1), ("a3", 1), ("b1", 2)];
    assert_eq!(on, expected.map(|(k, n)| (k.to_owned(), n)).into());
}

#[test]
fn what_has_no_place_is_summed_up_as_people_read_it() {
    let mut fleet = Fleet::exclusive(2);
    fleet.add_node("big", false, Resources::default());
    fleet.add_node("off", false, Resources::default());
    fleet.observed.nodes.get_mut(&node("off")).unwrap().cordoned = true;
    fleet.deploy("web", 2, Needs::default());
    fleet.converge(|_, _| {});
    let needs = Needs {
        resources: Resources {
            gpus: 1,
            ..Resources::default()
        },
        ..Needs::default()
    };
    fleet.deploy("gpu", 1, needs);
    let told = fleet.plan().waiting[0].reason.to_string();
    assert!(
        told.starts_with(
            "1 instance has no node: 4 nodes: 2 taken (exclusive), 1 cordoned, 1 no GPU;"
        ),
        "{told}"
    );
    let mut planner = crate::Planner::of(&fleet.desired, &fleet.observed);
    planner.plan(fleet.now);
    let why = planner.explain(&service("gpu"), 1);
    assert_eq!(why[&node("big")], crate::Rejection::NoGpu);
    assert_eq!(why.len(), 4);
}
