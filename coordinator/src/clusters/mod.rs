//! The tasks that carry out control's orders in Kubernetes clusters, one per configured cluster.
//!
//! Control says what shall be there ([`Orders`](crate::control::Orders)); the adapter's shared watches show what
//! is there; `decide` (pure) compares the two; the `driver` makes, deletes and reports. Without the cargo feature
//! `kubernetes` a configured cluster is unreachable, and says why.

#[cfg(feature = "kubernetes")]
mod decide;
#[cfg(feature = "kubernetes")]
mod driver;
#[cfg(feature = "kubernetes")]
mod words;

use crate::config::ClusterSettings;
use crate::control::{ClusterInfo, Handle};
use crate::edge::Edge;

/// What control is told of the configured clusters.
pub fn infos(settings: &[ClusterSettings]) -> Vec<ClusterInfo> {
    settings
        .iter()
        .map(|cluster| ClusterInfo {
            name: cluster.name.clone(),
            labels: cluster.labels.clone(),
            namespace: cluster.namespace.clone(),
        })
        .collect()
}

/// Starts a task for each cluster; they end at shutdown.
#[cfg(feature = "kubernetes")]
pub fn start(settings: &[ClusterSettings], fleet: &str, edge: &std::sync::Arc<Edge>) {
    for cluster in settings {
        let cluster = berth_kubernetes::Cluster::start(words::config(cluster, fleet));
        edge.figures.add(words::figures(&cluster));
        let control: Handle = edge.control.clone();
        let shutdown = edge.shutdown.clone();
        tokio::spawn(async move {
            let driver = driver::Driver::new(cluster, control);
            shutdown.run_until_cancelled(driver.run()).await;
        });
    }
}

/// Says of each cluster that this build cannot use it.
#[cfg(not(feature = "kubernetes"))]
pub fn start(settings: &[ClusterSettings], _: &str, edge: &std::sync::Arc<Edge>) {
    use crate::control::{Command, Reach};
    for cluster in settings {
        let control: Handle = edge.control.clone();
        let name = cluster.name.clone();
        let why = "this build of berth-coordinator has no Kubernetes support: use a release build, or build it \
                   with --features kubernetes"
            .to_owned();
        tokio::spawn(async move {
            control
                .tell(Command::ClusterReach(name, Reach::Unreachable { why }))
                .await;
        });
    }
}
