//! What must hold whatever happens: random fleets, random events, every plan checked.

use std::collections::BTreeMap;

use berth_model::instance::Phase;
use berth_model::resources::Resources;
use proptest::prelude::*;

use crate::fleet::{Fleet, node, service};
use crate::{Action, Needs, Session};

#[derive(Debug, Clone)]
enum Happening {
    Deploy(u8, u32),
    Scale(u8, u32),
    Delete(u8),
    Silence(u8),
    Return(u8),
    Pass(u64),
    Step,
    Break(u8),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        2 => (0..3u8, 0..4u32).prop_map(|(s, n)| Happening::Deploy(s, n)),
        1 => (0..3u8, 0..5u32).prop_map(|(s, n)| Happening::Scale(s, n)),
        1 => (0..3u8).prop_map(Happening::Delete),
        1 => (0..6u8).prop_map(Happening::Silence),
        1 => (0..6u8).prop_map(Happening::Return),
        1 => (0..40_000u64).prop_map(Happening::Pass),
        6 => Just(Happening::Step),
        1 => (0..3u8).prop_map(Happening::Break),
    ]
}

fn needs() -> Needs {
    let resources = Resources {
        memory_bytes: 400,
        cpu_millis: 500,
        ..Resources::default()
    };
    Needs {
        resources,
        ..Needs::default()
    }
}

fn mixed() -> Fleet {
    let mut fleet = Fleet::exclusive(0);
    let large = Resources {
        cpu_millis: 2000,
        memory_bytes: 1000,
        gpus: 0,
        disk_bytes: 0,
    };
    for i in 0..6 {
        fleet.add_node(&format!("n{i}"), i < 4, large);
    }
    fleet
}

fn happen(fleet: &mut Fleet, what: &Happening) {
    let name = |s: &u8| format!("s{s}");
    match what {
        Happening::Deploy(s, replicas) => {
            let deleting = fleet
                .desired
                .services
                .get(&service(&name(s)))
                .is_some_and(|r| r.deleting);
            // A name is free again when its deletion is done; its revision numbers go on in control.
            if !deleting {
                fleet.deploy(&name(s), *replicas, needs());
            }
        }
        Happening::Scale(s, replicas) => {
            if let Some(record) = fleet.desired.services.get_mut(&service(&name(s))) {
                record.replicas = *replicas;
            }
        }
        Happening::Delete(s) => {
            if let Some(record) = fleet.desired.services.get_mut(&service(&name(s))) {
                record.deleting = true;
            }
        }
        Happening::Silence(n) => fleet.silence(&format!("n{n}")),
        Happening::Return(n) => {
            let seen = fleet
                .observed
                .nodes
                .get_mut(&node(&format!("n{n}")))
                .unwrap();
            seen.session = Session::Connected;
        }
        Happening::Pass(ms) => fleet.pass(*ms),
        Happening::Step => fleet.advance(),
        Happening::Break(s) => {
            let broken = (service(&name(s)), 1);
            fleet.broken.push(broken);
        }
    }
}

fn check_capacity(fleet: &Fleet) {
    let mut used: BTreeMap<_, (u32, u64)> = BTreeMap::new();
    for seen in fleet
        .observed
        .instances
        .values()
        .filter(|s| s.phase != Phase::Stopped)
    {
        let Some(node) = seen.place.node() else {
            continue;
        };
        let entry = used.entry(node.clone()).or_default();
        *entry = (entry.0 + 1, entry.1 + 400);
    }
    for (name, (count, memory)) in used {
        let node = &fleet.observed.nodes[&name];
        assert!(
            !node.exclusive || count <= 1,
            "{name} is exclusive and holds {count}"
        );
        assert!(
            memory <= node.capacity.memory_bytes,
            "{name} is over its memory"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// No node over its capacity, no exclusive node with two, the same input gives the same plan,
    /// stages only move forward and attempts are never used twice (asserted as the plan is applied),
    /// and when all is quiet the fleet comes to rest.
    #[test]
    fn plans_are_safe_and_come_to_rest(happenings in prop::collection::vec(happening(), 1..60)) {
        let mut fleet = mixed();
        for what in &happenings {
            happen(&mut fleet, what);
            let plan = fleet.plan();
            prop_assert_eq!(&plan, &fleet.plan());
            fleet.apply(&plan);
            check_capacity(&fleet);
        }
        for seen in fleet.observed.nodes.values_mut() {
            seen.session = Session::Connected;
        }
        fleet.pass(60_000);
        fleet.converge(|_, _| ());
        for (name, record) in &fleet.desired.services {
            prop_assert!(!record.deleting, "{} is still being deleted", name);
        }
    }

    /// Nothing moves without cause: a settled fleet with one node lost keeps every instance of the others.
    #[test]
    fn one_nodes_loss_moves_only_its_own(replicas in 1..5u32, lost in 0..6u8) {
        let mut fleet = mixed();
        fleet.deploy("s0", replicas, needs());
        fleet.converge(|_, _| ());
        let before = fleet.observed.instances.clone();
        fleet.silence(&format!("n{lost}"));
        fleet.pass(30_000);
        let gone = node(&format!("n{lost}"));
        fleet.converge(|_, plan| {
            for action in &plan.actions {
                if let Action::Drain { id, .. } | Action::Stop { id, .. } = action {
                    panic!("{id} was moved without cause");
                }
            }
        });
        for (id, seen) in before.iter().filter(|(_, seen)| seen.place != gone.clone().into()) {
            prop_assert_eq!(fleet.observed.instances.get(id), Some(seen));
        }
    }
}
