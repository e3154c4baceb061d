//! Over random fleets: applying is idempotent, what is exported is what is there, and pruning touches only
//! what the same fleet declared.

use berth_model::api::{CreateJob, Deploy, NodeLabels, PutPool};
use berth_model::fleetfile::{self, Source};
use berth_model::job::JobState;
use proptest::prelude::*;

use super::tests::apply;
use super::*;
use crate::control::testing::{self, model_version, node_record};

const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// Three nodes and two models of two versions.
fn world() -> World {
    let mut world = testing::world();
    for name in NODES {
        let node = node_record(name, true);
        world.records.nodes.put(node.name.clone(), node);
    }
    for name in ["m", "k"] {
        for serial in [1, 2] {
            let version = model_version(name, &format!("{serial}.0.0"), serial);
            let key = (version.name.clone(), serial);
            world.records.models.put(key, version);
        }
    }
    world
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map("[a-c]", "[x-z]", 1..3)
}

fn model() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["m", "k", "m@1.0.0", "k@2.0.0", "m@#2"]).prop_map(str::to_owned)
}

fn pool() -> impl Strategy<Value = Option<String>> {
    prop::option::of(prop::sample::select(vec!["p1".to_owned(), "p2".to_owned()]))
}

fn env() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map("[A-B]", "[ -~]{0,4}", 0..2)
}

fn services() -> impl Strategy<Value = Vec<(String, Deploy)>> {
    let one = (
        "s[1-4]",
        model(),
        prop::option::of(0..4_u32),
        prop::option::of(0..3_u32),
        pool(),
        env(),
    );
    let one = one.prop_map(|(name, model, replicas, max_unavailable, pool, env)| {
        let deploy = Deploy {
            model,
            service: None,
            replicas,
            runtime: None,
            pool,
            spread: (replicas == Some(3)).then(|| vec!["rack".to_owned()]),
            env,
            max_unavailable,
        };
        (name, deploy)
    });
    prop::collection::vec(one, 0..4)
}

fn jobs() -> impl Strategy<Value = Vec<(String, CreateJob)>> {
    let figures = (
        prop::option::of(1..4_u32),
        prop::option::of(1..4_u32),
        prop::option::of(0..4_u32),
    );
    let one = ("j[1-3]", model(), figures, pool());
    let one = one.prop_map(|(name, model, (completions, parallelism, retries), pool)| {
        let job = CreateJob {
            model,
            completions,
            parallelism,
            retries,
            pool,
            ..CreateJob::default()
        };
        (name, job)
    });
    prop::collection::vec(one, 0..3)
}

prop_compose! {
    fn fleet()(
        name in prop::sample::select(vec!["a", "b"]),
        nodes in prop::collection::vec((prop::sample::select(NODES.to_vec()), labels()), 0..3),
        pools in prop::collection::vec(("p[12]", labels()), 0..3),
        services in services(),
        jobs in jobs(),
    ) -> Fleet {
        Fleet {
            fleet: name.parse().unwrap(),
            nodes: nodes
                .into_iter()
                .map(|(name, labels)| (name.parse().unwrap(), NodeLabels { labels }))
                .collect(),
            pools: pools
                .into_iter()
                .map(|(name, labels)| (name.parse().unwrap(), PutPool { labels }))
                .collect(),
            models: BTreeMap::new(),
            services: services
                .into_iter()
                .map(|(name, deploy)| (name.parse().unwrap(), deploy))
                .collect(),
            jobs: jobs
                .into_iter()
                .map(|(name, job)| {
                    let name: berth_model::id::JobName = name.parse().unwrap();
                    (name.clone(), CreateJob { name: Some(name), ..job })
                })
                .collect(),
        }
    }
}

/// Jobs of the same name as one that is there cannot differ from it: those are left out.
fn possible(world: &World, mut fleet: Fleet, adopt: bool, prune: bool) -> FleetRequest {
    fleet
        .jobs
        .retain(|name, _| !world.records.jobs.contains_key(name));
    FleetRequest {
        fleet,
        prune,
        adopt,
        versions: None,
    }
}

/// What is owned by whom, in one line each.
fn owned(world: &World, by: impl Fn(Option<&FleetName>) -> bool) -> Vec<String> {
    let r = &world.records;
    let mut all = Vec::new();
    for s in r.services.values().filter(|s| by(s.fleet.as_ref())) {
        all.push(format!("{s:?}"));
    }
    for j in r.jobs.values().filter(|j| by(j.fleet.as_ref())) {
        all.push(format!("{j:?}"));
    }
    for p in r.pools.values().filter(|p| by(p.fleet.as_ref())) {
        all.push(format!("{p:?}"));
    }
    for n in r.nodes.values() {
        let labels = n.labels.iter().filter(|(k, _)| by(n.declared.get(*k)));
        all.extend(labels.map(|label| format!("{} {label:?}", n.name)));
    }
    all
}

proptest! {
    #[test]
    fn applying_again_does_nothing(fleets in prop::collection::vec((fleet(), any::<bool>()), 1..5)) {
        let mut world = world();
        for (fleet, prune) in fleets {
            let request = possible(&world, fleet, true, prune);
            let Ok(planned) = plan(&world, &request) else {
                // A pool that is still used, or the name of a service that is being deleted.
                let before = format!("{:?}", world.records.services);
                prop_assert!(apply(&mut world, &request).is_err());
                prop_assert_eq!(before, format!("{:?}", world.records.services));
                continue;
            };
            let done = apply(&mut world, &request).unwrap();
            prop_assert_eq!(&planned, &done);
            world.records.take_changes().unwrap();
            let again = apply(&mut world, &request).unwrap();
            prop_assert!(again.is_empty(), "{:?}", again);
            prop_assert!(world.records.take_changes().unwrap().is_empty());
        }
    }

    #[test]
    fn what_is_exported_is_what_is_there(
        by_hand in services(),
        fleets in prop::collection::vec(fleet(), 1..4),
        over in any::<bool>(),
    ) {
        let mut world = world();
        for (name, deploy) in by_hand {
            let deploy = Deploy { service: Some(name.parse().unwrap()), ..deploy };
            commands::services::deploy(&mut world, &deploy).unwrap();
        }
        for fleet in fleets {
            let fleet = Fleet { fleet: "a".parse().unwrap(), ..fleet };
            let request = possible(&world, fleet, true, false);
            apply(&mut world, &request).unwrap();
        }
        if over {
            let jobs: Vec<_> = world.records.jobs.values().cloned().collect();
            for mut job in jobs {
                job.state = JobState::Succeeded;
                world.records.jobs.put(job.name.clone(), job);
            }
        }
        let exported = export(&world, None).unwrap();
        let text = fleetfile::write(&exported);
        let parsed = fleetfile::parse(&[Source { name: "f", text: &text }]);
        prop_assert_eq!(&parsed.errors, &[], "{}", text);
        prop_assert_eq!(&parsed.declared.fleet, &exported);
        let request = FleetRequest {
            fleet: parsed.declared.fleet,
            prune: true,
            ..FleetRequest::default()
        };
        let plan = plan(&world, &request).unwrap();
        prop_assert_eq!(plan.changes, [], "{}", text);
    }

    #[test]
    fn pruning_touches_only_its_own(
        by_hand in services(),
        first in prop::collection::vec(fleet(), 1..4),
        last in fleet(),
    ) {
        let mut world = world();
        for (name, deploy) in by_hand {
            let deploy = Deploy { service: Some(format!("h{name}").parse().unwrap()), ..deploy };
            commands::services::deploy(&mut world, &deploy).unwrap();
        }
        for fleet in first {
            let request = possible(&world, fleet, false, false);
            // What the other fleet declares is refused, and changes nothing.
            let _ = apply(&mut world, &request);
        }
        let name = last.fleet.clone();
        let others = |owner: Option<&FleetName>| owner != Some(&name);
        let before = owned(&world, others);
        let request = possible(&world, last.clone(), false, true);
        if apply(&mut world, &request).is_ok() {
            let after = owned(&world, others);
            // What was made by hand and is declared now is adopted; nothing else of others is different.
            let adopted: Vec<&String> = before.iter().filter(|line| !after.contains(line)).collect();
            let labels = |line: &&&String| NODES.iter().any(|n| line.starts_with(&format!("{n} ")));
            prop_assert!(adopted.iter().all(|l| labels(&l)), "{:?}", adopted);
            prop_assert!(after.iter().all(|line| before.contains(line)), "{:?}", after);
            // And of its own only what is declared is left.
            for service in world.records.services.values().filter(|s| s.fleet.as_ref() == Some(&name)) {
                prop_assert!(service.deleting || last.services.contains_key(&service.name));
            }
            for pool in world.records.pools.values().filter(|p| p.fleet.as_ref() == Some(&name)) {
                prop_assert!(last.pools.contains_key(&pool.name));
            }
        }
    }
}
