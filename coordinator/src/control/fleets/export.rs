//! What is there, as fleet files would declare it.

use std::collections::{BTreeMap, BTreeSet};

use berth_model::api::{Deploy, Fleet, ModelWanted, NodeLabels, PutPool};
use berth_model::id::{FleetName, ModelName, NodeName};
use berth_model::node::NodeRecord;
use berth_model::problem::Problem;
use berth_model::service::ServiceRecord;

use super::jobs;
use crate::control::world::World;

/// What one fleet's files declare and what was made by hand, as one fleet. Of jobs made by hand those that
/// still run: one that has ended is history. Without a name: that of the only fleet there is. Errors: 409 if
/// there are several.
pub(crate) fn export(world: &World, fleet: Option<FleetName>) -> Result<Fleet, Problem> {
    let fleet = match fleet {
        Some(fleet) => fleet,
        None => only(world)?,
    };
    let own = |owner: Option<&FleetName>| owner.is_none_or(|owner| *owner == fleet);
    let records = &world.records;
    let services = records.services.values();
    let services = services.filter(|s| !s.deleting && own(s.fleet.as_ref()));
    let jobs = records.jobs.values();
    let jobs = jobs.filter(|j| {
        let ended = j.fleet.is_none() && j.state.is_over();
        !j.deleting && !ended && own(j.fleet.as_ref())
    });
    let pools = records.pools.values().filter(|p| own(p.fleet.as_ref()));
    let pools = pools.map(|p| {
        let labels = p.labels.clone();
        (p.name.clone(), PutPool { labels })
    });
    Ok(Fleet {
        nodes: records
            .nodes
            .values()
            .filter_map(|n| node(n, own))
            .collect(),
        pools: pools.collect(),
        models: models(world),
        services: services
            .filter_map(|s| Some((s.name.clone(), service(s)?)))
            .collect(),
        jobs: jobs.map(|j| (j.name.clone(), jobs::request(j))).collect(),
        fleet,
    })
}

/// The only fleet whose files declare anything; the default's name if there is none.
fn only(world: &World) -> Result<FleetName, Problem> {
    let records = &world.records;
    let services = records.services.values().filter_map(|s| s.fleet.as_ref());
    let jobs = records.jobs.values().filter_map(|j| j.fleet.as_ref());
    let pools = records.pools.values().filter_map(|p| p.fleet.as_ref());
    let nodes = records.nodes.values().flat_map(|n| n.declared.values());
    let all: BTreeSet<&FleetName> = services.chain(jobs).chain(pools).chain(nodes).collect();
    let names: Vec<&str> = all.iter().map(|name| name.as_str()).collect();
    match all.first() {
        Some(_) if all.len() > 1 => Err(Problem::conflict(format!(
            "several fleets' files declare things: {}; say which is to be exported with --fleet",
            names.join(", ")
        ))),
        Some(name) => Ok(FleetName::clone(name)),
        None => Ok(FleetName::default()),
    }
}

/// The labels of a node that are not another fleet's.
fn node(
    node: &NodeRecord,
    own: impl Fn(Option<&FleetName>) -> bool,
) -> Option<(NodeName, NodeLabels)> {
    let labels = node.labels.iter();
    let labels: BTreeMap<String, String> = labels
        .filter(|(key, _)| own(node.declared.get(*key)))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    (!labels.is_empty()).then(|| (node.name.clone(), NodeLabels { labels }))
}

/// The newest version of every model.
fn models(world: &World) -> BTreeMap<ModelName, ModelWanted> {
    let models = world.records.models.values();
    let wanted = models.map(|m| {
        let wanted = ModelWanted {
            version: m.version.clone(),
            digest: Some(m.digest),
            at_hand: false,
        };
        (m.name.clone(), wanted)
    });
    // In the order of serials, so that the last one stays.
    wanted.collect()
}

/// The request that would make this service.
fn service(service: &ServiceRecord) -> Option<Deploy> {
    let current = service.current()?;
    Some(Deploy {
        model: format!("{}@{}", current.model, current.version),
        service: Some(service.name.clone()),
        replicas: Some(service.replicas),
        runtime: Some(current.runtime).filter(|r| *r != Default::default()),
        pool: current.pool.clone(),
        spread: current.spread.clone(),
        env: current.env.clone(),
        max_unavailable: Some(service.max_unavailable).filter(|n| *n != 1),
    })
}
