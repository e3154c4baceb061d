//! Pools: which nodes and clusters a name means.

use std::collections::BTreeMap;

use berth_model::api::PutPool;
use berth_model::id::PoolName;
use berth_model::pool::{POOL_LABEL, PoolRecord};
use berth_model::problem::Problem;

use crate::control::events::Happened;
use crate::control::labels_text;
use crate::control::world::World;

/// Most pools: each is looked at for every service that names one.
pub(crate) const MAX_POOLS: usize = 10_000;

/// The labels that a place must have for something with these: where they name a pool that has a record,
/// that pool's labels instead of the label `pool`.
pub(crate) fn selector(
    world: &World,
    labels: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    select(labels, |name| {
        world.records.pools.get(name).map(|p| &p.labels)
    })
}

/// The same by any other set of pools.
pub(crate) fn select<'a>(
    labels: &BTreeMap<String, String>,
    pool: impl FnOnce(&str) -> Option<&'a BTreeMap<String, String>>,
) -> BTreeMap<String, String> {
    let mut labels = labels.clone();
    let of_pool = labels.get(POOL_LABEL).and_then(|name| pool(name));
    if let Some(of_pool) = of_pool {
        labels.remove(POOL_LABEL);
        labels.extend(of_pool.clone());
    }
    labels
}

/// Makes a pool, or changes what it chooses by; what runs stays where it is.
pub(crate) fn put(world: &mut World, name: &PoolName, pool: &PutPool) -> Result<(), Problem> {
    pool.check().map_err(Problem::invalid)?;
    let old = world.records.pools.get(name);
    if old.is_none() && world.records.pools.len() >= MAX_POOLS {
        return Err(Problem::conflict(format!(
            "there are {MAX_POOLS} pools already"
        )));
    }
    if old.is_some_and(|old| old.labels == pool.labels) {
        return Ok(());
    }
    let record = PoolRecord {
        name: name.clone(),
        labels: pool.labels.clone(),
        fleet: old.and_then(|old| old.fleet.clone()),
        created: old.map_or(world.wall, |old| old.created),
        updated: world.wall,
    };
    world.happened(&Happened::PoolChanged(name, labels_text(&pool.labels)));
    world.records.pools.put(name.clone(), record);
    Ok(())
}

/// Takes a pool away. Errors: 404; 409 while services or jobs are placed in it.
pub(crate) fn delete(world: &mut World, name: &PoolName) -> Result<(), Problem> {
    find(world, name)?;
    let users = users(world, name);
    if !users.is_empty() {
        return Err(Problem::conflict(format!(
            "pool {name} is used by {}: place them elsewhere or delete them first",
            users.join(", ")
        )));
    }
    remove(world, name);
    Ok(())
}

/// Takes a pool away that nothing is placed in.
pub(crate) fn remove(world: &mut World, name: &PoolName) {
    if world.records.pools.remove(name).is_some() {
        world.happened(&Happened::PoolDeleted(name));
    }
}

/// A pool's record. Errors: 404 with what there is.
pub(crate) fn find<'a>(world: &'a World, name: &PoolName) -> Result<&'a PoolRecord, Problem> {
    world.records.pools.get(name).ok_or_else(|| {
        let known: Vec<&str> = world.records.pools.keys().map(PoolName::as_str).collect();
        let hint = berth_model::manifest::suggest::did_you_mean(name.as_str(), &known);
        Problem::not_found(format!(
            "there is no pool {name}; `berth pool list` shows all{hint}"
        ))
    })
}

/// What is placed in a pool, as `service/NAME` and `job/NAME`; what is over or on its way out is not.
pub(crate) fn users(world: &World, name: &PoolName) -> Vec<String> {
    let is = |labels: &BTreeMap<String, String>| {
        labels.get(POOL_LABEL).map(String::as_str) == Some(name.as_str())
    };
    let services = world.records.services.values();
    let services = services
        .filter(|s| !s.deleting && s.revisions.values().any(|r| is(&r.node_labels)))
        .map(|s| format!("service/{}", s.name));
    let jobs = world.records.jobs.values();
    let jobs = jobs
        .filter(|j| !j.deleting && !j.state.is_over() && is(&j.node_labels))
        .map(|j| format!("job/{}", j.name));
    services.chain(jobs).collect()
}

#[cfg(test)]
mod tests {
    use berth_model::node::NodeKind;

    use super::*;
    use crate::control::testing::{node_record, world_with_service};
    use crate::control::views;

    fn labels(text: &str) -> BTreeMap<String, String> {
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    #[test]
    fn a_record_replaces_the_label_and_leaves_the_others() {
        let mut w = world_with_service();
        let wanted = labels("pool=gpu,zone=a");
        assert_eq!(selector(&w, &wanted), wanted);
        let pool = PutPool {
            labels: labels("rack=a"),
        };
        put(&mut w, &"gpu".parse().unwrap(), &pool).unwrap();
        assert_eq!(selector(&w, &wanted), labels("rack=a,zone=a"));
        assert_eq!(selector(&w, &labels("pool=cpu")), labels("pool=cpu"));
    }

    #[test]
    fn nodes_are_chosen_by_their_kind_unless_they_have_another_label_of_that_name() {
        let mut w = world_with_service();
        for (name, kind, own) in [
            ("p1", NodeKind::Physical, ""),
            ("p2", NodeKind::Physical, "kind=old"),
            ("v1", NodeKind::Virtual, "zone=a"),
        ] {
            let mut node = node_record(name, false);
            node.facts.kind = kind;
            node.labels = labels(own);
            w.records.nodes.put(node.name.clone(), node);
        }
        let chosen = |w: &World, name: &str| -> Vec<String> {
            let view = views::pool::one(w, &name.parse().unwrap()).unwrap();
            view.places.iter().map(ToString::to_string).collect()
        };
        for (pool, by, expected) in [
            ("metal", "kind=physical", &["p1"][..]),
            ("old", "kind=old", &["p2"]),
            ("vm-a", "kind=virtual,zone=a", &["v1"]),
        ] {
            let put_pool = PutPool { labels: labels(by) };
            put(&mut w, &pool.parse().unwrap(), &put_pool).unwrap();
            assert_eq!(chosen(&w, pool), expected, "{by}");
        }
        // The planner goes by the same.
        let (_, observed) = crate::control::feed::everything(&w);
        assert_eq!(observed.nodes["p1"].labels["kind"], "physical");
    }

    #[test]
    fn a_pool_that_is_used_stays() {
        let mut w = world_with_service();
        let gpu: PoolName = "gpu".parse().unwrap();
        let pool = PutPool {
            labels: labels("rack=a"),
        };
        put(&mut w, &gpu, &pool).unwrap();
        let mut service = w.records.services["web"].clone();
        for revision in service.revisions.values_mut() {
            revision.node_labels = labels("pool=gpu");
        }
        w.records
            .services
            .put(service.name.clone(), service.clone());
        let refused = delete(&mut w, &gpu).unwrap_err();
        assert!(refused.detail.contains("service/web"), "{refused}");
        service.deleting = true;
        w.records.services.put(service.name.clone(), service);
        delete(&mut w, &gpu).unwrap();
        assert_eq!(delete(&mut w, &gpu).unwrap_err().status, 404);
        let kinds: Vec<&str> = w.records.events.values().map(|e| e.kind.as_str()).collect();
        assert!(
            kinds.ends_with(&["pool-changed", "pool-deleted"]),
            "{kinds:?}"
        );
    }

    #[test]
    fn a_pool_chooses_by_labels_that_can_be() {
        for bad in ["", "-x=1", &format!("a={}", "v".repeat(64))] {
            let pool = PutPool {
                labels: labels(bad),
            };
            assert!(pool.check().is_err(), "{bad}");
        }
    }
}
