//! Clusters as the API shows them.

use std::sync::Arc;

use berth_model::api::ClusterView;
use berth_model::id::ClusterName;
use berth_model::problem::Problem;
use tokio::sync::watch;

use crate::control::clusters::{Cluster, Orders, Reach};
use crate::control::world::World;

/// All clusters by name.
pub(crate) fn all(world: &World) -> Vec<ClusterView> {
    let clusters = world.clusters.values();
    clusters.map(|cluster| view(world, cluster)).collect()
}

/// One cluster. Errors: 404.
pub(crate) fn one(world: &World, name: &ClusterName) -> Result<ClusterView, Problem> {
    find(world, name).map(|cluster| view(world, cluster))
}

/// What a cluster shall run. Errors: 404.
pub(crate) fn orders(
    world: &World,
    name: &ClusterName,
) -> Result<watch::Receiver<Arc<Orders>>, Problem> {
    find(world, name).map(|cluster| cluster.orders.subscribe())
}

fn find<'a>(world: &'a World, name: &ClusterName) -> Result<&'a Cluster, Problem> {
    world.clusters.get(name).ok_or_else(|| {
        let known: Vec<&str> = world.clusters.keys().map(ClusterName::as_str).collect();
        let hint = berth_model::manifest::suggest::did_you_mean(name.as_str(), &known);
        Problem::not_found(format!(
            "there is no cluster {name}; `berth cluster list` shows all, [[cluster]] in coordinator.toml adds \
             one{hint}"
        ))
    })
}

fn view(world: &World, cluster: &Cluster) -> ClusterView {
    let name = &cluster.info.name;
    let (state, reason) = match &cluster.reach {
        Reach::Connecting => ("connecting", String::new()),
        Reach::Ready { lacking } => ("ready", lacking.clone().unwrap_or_default()),
        Reach::Unreachable { why } => ("unreachable", why.clone()),
    };
    let instances = world.records.instances.values();
    ClusterView {
        name: name.clone(),
        state: state.to_owned(),
        reason,
        since: cluster.since,
        namespace: cluster.info.namespace.clone(),
        labels: cluster.info.labels.clone(),
        instances: instances
            .filter(|record| record.place.cluster() == Some(name))
            .map(|record| record.id.clone())
            .collect(),
    }
}
