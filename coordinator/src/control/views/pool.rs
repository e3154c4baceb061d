//! Pools as the API shows them.

use berth_model::api::PoolView;
use berth_model::id::PoolName;
use berth_model::place::Place;
use berth_model::pool::{PoolRecord, chosen};
use berth_model::problem::Problem;

use crate::control::commands::pools;
use crate::control::world::World;

/// All pools by name.
pub(crate) fn all(world: &World) -> Vec<PoolView> {
    let pools = world.records.pools.values();
    pools.map(|record| view(world, record)).collect()
}

/// One pool. Errors: 404.
pub(crate) fn one(world: &World, name: &PoolName) -> Result<PoolView, Problem> {
    pools::find(world, name).map(|record| view(world, record))
}

fn view(world: &World, record: &PoolRecord) -> PoolView {
    let nodes = world.records.nodes.values();
    let nodes = nodes
        .filter(|n| chosen(&record.labels, &n.place_labels()))
        .map(|n| Place::Node(n.name.clone()));
    let clusters = world.clusters.iter();
    let clusters = clusters
        .filter(|(_, c)| chosen(&record.labels, &c.info.labels))
        .map(|(name, _)| Place::Cluster(name.clone()));
    PoolView {
        name: record.name.clone(),
        labels: record.labels.clone(),
        fleet: record.fleet.clone(),
        places: nodes.chain(clusters).collect(),
        users: pools::users(world, &record.name),
        created: record.created,
        updated: record.updated,
    }
}
