//! Nothing moves without cause: what runs stays where it is, whatever else happens to the fleet.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_model::id::{InstanceId, NodeName};
use berth_model::instance::Stage;
use proptest::prelude::*;

use crate::fleet::{Fleet, node};
use crate::placing::{Wanted, digest, fleet, machine, wanted};
use crate::{Action, InstanceSeen, NodeSeen, Plan, WaitReason};

/// What is no cause to move anything.
#[derive(Debug, Clone)]
enum News {
    /// A node joins, perhaps a better place than any other.
    Joined(NodeSeen),
    /// A node gets a package, or loses all it has.
    Packages(usize, Option<u8>),
    /// A node is put into another zone.
    Zone(usize, u8),
    Cordon(usize, bool),
    DiskFull(usize, bool),
    /// Somebody else's service, which may find room.
    Deployed(Wanted),
    Gateway,
    /// Less than a lease.
    Silent(usize),
}

fn news() -> impl Strategy<Value = News> {
    let which = 0..24usize;
    prop_oneof![
        machine(99).prop_map(News::Joined),
        (which.clone(), prop::option::of(0..3u8)).prop_map(|(n, p)| News::Packages(n, p)),
        (which.clone(), 0..3u8).prop_map(|(n, zone)| News::Zone(n, zone)),
        (which.clone(), any::<bool>()).prop_map(|(n, on)| News::Cordon(n, on)),
        (which.clone(), any::<bool>()).prop_map(|(n, on)| News::DiskFull(n, on)),
        wanted().prop_map(News::Deployed),
        Just(News::Gateway),
        which.prop_map(News::Silent),
    ]
}

fn some_node(fleet: &mut Fleet, which: usize) -> (NodeName, &mut NodeSeen) {
    let n = fleet.observed.nodes.len();
    let (name, seen) = fleet.observed.nodes.iter_mut().nth(which % n).unwrap();
    (name.clone(), seen)
}

fn happen(fleet: &mut Fleet, number: usize, what: News) {
    match what {
        News::Joined(seen) => {
            let name = node(&format!("a-new-{number}"));
            fleet.observed.nodes.insert(name, seen);
        }
        News::Packages(which, package) => {
            let packages = package.into_iter().map(digest).collect();
            some_node(fleet, which).1.packages = Arc::new(packages);
        }
        News::Zone(which, zone) => {
            let labels = &mut some_node(fleet, which).1.labels;
            labels.insert("zone".to_owned(), format!("zone-{zone}"));
        }
        News::Cordon(which, on) => some_node(fleet, which).1.cordoned = on,
        News::DiskFull(which, on) => some_node(fleet, which).1.disk_full = on,
        News::Deployed(wanted) => {
            fleet.deploy(&format!("other-{number}"), wanted.replicas, wanted.needs);
        }
        News::Gateway => fleet.add_gateway(&format!("g{number}")),
        News::Silent(which) => {
            let (name, _) = some_node(fleet, which);
            fleet.silence(name.as_str());
        }
    }
}

/// A fleet on which everything has been started that has room.
fn settled(mut fleet: Fleet, services: &[Wanted]) -> Fleet {
    for (i, wanted) in services.iter().enumerate() {
        fleet.deploy(&format!("s{i}"), wanted.replicas, wanted.needs.clone());
    }
    fleet.converge(|_, _| ());
    fleet
}

fn moves(plan: &Plan) -> Option<&Action> {
    let moves = |action: &&Action| !matches!(action, Action::Create { .. });
    plan.actions.iter().find(moves)
}

type Instances = BTreeMap<InstanceId, InstanceSeen>;

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Better places, other labels, packages, cordons, full disks, silence shorter than a lease and other services
    /// leave everything that runs where it is.
    #[test]
    fn what_runs_stays(
        start in fleet(),
        services in prop::collection::vec(wanted(), 1..5),
        news in prop::collection::vec(news(), 1..12),
    ) {
        let mut fleet = settled(start, &services);
        for (number, what) in news.into_iter().enumerate() {
            let before: Instances = fleet.observed.instances.clone();
            happen(&mut fleet, number, what);
            fleet.converge(|_, plan| assert_eq!(moves(plan), None));
            for (id, seen) in &before {
                prop_assert_eq!(fleet.observed.instances.get(id), Some(seen));
            }
        }
    }

    /// One node's loss moves its own instances and no other; each is replaced, or it is told why not.
    #[test]
    fn a_loss_moves_its_own(
        start in fleet(),
        services in prop::collection::vec(wanted(), 1..5),
        lost in 0..24usize,
    ) {
        let mut fleet = settled(start, &services);
        let (lost, _) = some_node(&mut fleet, lost);
        let before = fleet.observed.instances.clone();
        fleet.silence(lost.as_str());
        fleet.pass(30_000);
        fleet.converge(|fleet, plan| {
            for action in &plan.actions {
                match action {
                    Action::Create { place, .. } => assert_ne!(place.node(), Some(&lost)),
                    Action::LoseInstance { id } => {
                        let seen = &fleet.observed.instances[id];
                        assert_eq!(seen.place.node(), Some(&lost), "{id}");
                    }
                    Action::LoseNode { node } => assert_eq!(*node, lost),
                    other => panic!("{other:?}"),
                }
            }
        });
        for (id, seen) in &before {
            let now = &fleet.observed.instances[id];
            if seen.place.node() == Some(&lost) {
                prop_assert_eq!(now.stage, Stage::Lost, "{} is not fenced", id);
            } else {
                prop_assert_eq!(now, seen);
            }
        }
        let plan = fleet.plan();
        for (name, record) in &fleet.desired.services {
            let mine = fleet.observed.instances.iter();
            let mine = mine.filter(|(id, seen)| id.slot.service == *name && seen.stage == Stage::Running);
            let lacking = record.replicas as usize - mine.count();
            let told = plan.waiting.iter().find_map(|waiting| match &waiting.reason {
                WaitReason::NoNode { missing, .. } if waiting.service == *name => Some(*missing as usize),
                _ => None,
            });
            prop_assert_eq!(told.unwrap_or_default(), lacking, "{}", name);
        }
    }
}
