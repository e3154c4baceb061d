//! Pools.

use std::collections::BTreeSet;

use berth_model::api::PutPool;
use berth_model::id::PoolName;
use berth_model::manifest::suggest::did_you_mean;
use berth_model::pool::{POOL_LABEL, PoolRecord, chosen};

use super::Draft;
use super::step::{Step, Todo, table};
use crate::control::commands;
use crate::control::events::Happened;
use crate::control::labels_text;
use crate::control::world::World;

impl Draft<'_> {
    /// What is declared of pools.
    pub(super) fn pools(&mut self) {
        let wanted = self.wanted;
        for (name, pool) in &wanted.pools {
            self.one_pool(name, pool);
        }
        let new = wanted
            .pools
            .keys()
            .filter(|name| !self.world.records.pools.contains_key(*name));
        let all = self.world.records.pools.len() + new.count();
        if all > commands::pools::MAX_POOLS {
            let most = commands::pools::MAX_POOLS;
            self.errors.push(format!(
                "{all} pools would be more than there may be ({most})"
            ));
        }
    }

    fn one_pool(&mut self, name: &PoolName, wanted: &PutPool) {
        let path = format!("pool.{name}");
        if let Err(message) = wanted.check() {
            self.fail(&format!("{path}.labels"), message);
            return;
        }
        let old = self.world.records.pools.get(name);
        let adopts = old.is_some_and(|old| self.adopts(&path, old.fleet.as_ref()));
        let wall = self.world.wall;
        let same = old.filter(|old| old.labels == wanted.labels);
        let record = PoolRecord {
            name: name.clone(),
            labels: wanted.labels.clone(),
            fleet: Some(self.wanted.fleet.clone()),
            created: old.map_or(wall, |old| old.created),
            updated: same.map_or(wall, |old| old.updated),
        };
        self.steps.push(Step {
            subject: format!("pool/{name}"),
            old: old.map(|old| table("labels", &old.labels)),
            new: Some(table("labels", &wanted.labels)),
            basis: format!("{:?}", old.map(|old| &old.fleet)),
            adopts,
            effects: Vec::new(),
            todo: Todo::Pool(record),
        });
    }

    /// What can be and may well be a mistake.
    pub(super) fn doubts(&mut self) {
        let wanted = self.wanted;
        let places = self.places();
        for (name, pool) in &wanted.pools {
            if !places.iter().any(|has| chosen(&pool.labels, has)) {
                self.warnings.push(format!(
                    "pool.{name}.labels: no node or cluster has {}, so nothing can be placed in it",
                    labels_text(&pool.labels)
                ));
            }
        }
        let labelled: BTreeSet<&str> = places
            .iter()
            .filter_map(|has| has.get(POOL_LABEL).map(String::as_str))
            .collect();
        let pools = wanted.pools.keys().chain(self.world.records.pools.keys());
        let known: Vec<&str> = pools
            .map(PoolName::as_str)
            .chain(labelled.iter().copied())
            .collect();
        let services = wanted.services.iter();
        let services = services.map(|(name, s)| (format!("service.{name}"), s.pool.as_deref()));
        let jobs = wanted.jobs.iter();
        let jobs = jobs.map(|(name, j)| (format!("job.{name}"), j.pool.as_deref()));
        for (path, pool) in services.chain(jobs) {
            let Some(pool) = pool.filter(|pool| !known.contains(pool)) else {
                continue;
            };
            self.warnings.push(format!(
                "{path}.pool: there is no pool {pool}, and no node or cluster has the label pool={pool}, so \
                 nothing can be placed{}",
                did_you_mean(pool, &known)
            ));
        }
    }
}

/// Keeps a pool.
pub(super) fn keep(world: &mut World, record: PoolRecord) {
    let old = world.records.pools.get(&record.name);
    if old.is_none_or(|old| old.labels != record.labels) {
        let labels = labels_text(&record.labels);
        world.happened(&Happened::PoolChanged(&record.name, labels));
    }
    world.records.pools.put(record.name.clone(), record);
}
