//! `[[cluster]]` of `coordinator.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use berth_model::id::ClusterName;
use berth_model::time::Bytes;
use serde::Deserialize;

use super::Keys;

/// One Kubernetes cluster that Berth may use. Unknown keys are refused.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterSettings {
    /// Its name in Berth.
    pub name: ClusterName,
    /// A kubeconfig file; this or `in_cluster`.
    #[serde(default)]
    pub kubeconfig: Option<PathBuf>,
    /// The coordinator runs in the cluster and uses its Pod's service account.
    #[serde(default)]
    pub in_cluster: bool,
    /// The context in the kubeconfig; its current one if absent.
    #[serde(default)]
    pub context: Option<String>,
    /// The namespace of Berth's Jobs, which must exist. Default `berth`.
    #[serde(default = "berth")]
    pub namespace: String,
    /// `HOST:PORT` at which Pods reach this coordinator.
    pub endpoint: String,
    /// Labels, for pools: `{ pool = "gpu" }`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Registry that holds Berth's own image, as `REGISTRY/berth-pod:VERSION`.
    #[serde(default)]
    pub registry: Option<String>,
    /// Berth's own image, where `registry` does not say it.
    #[serde(default)]
    pub image: Option<String>,
    /// Image for modules with the python preset that name none.
    #[serde(default)]
    pub base_python: Option<String>,
    /// Image for modules of kind tf-serving that name none.
    #[serde(default)]
    pub base_tf_serving: Option<String>,
    /// Image for everything else that names none.
    #[serde(default)]
    pub base_binary: Option<String>,
    /// Secrets in the namespace with credentials for the registries.
    #[serde(default)]
    pub image_pull_secrets: Vec<String>,
    /// The Pods' service account; its token is never mounted.
    #[serde(default)]
    pub service_account: Option<String>,
    /// Labels that the cluster's machines must have.
    #[serde(default)]
    pub node_selector: BTreeMap<String, String>,
    /// CPU in thousandths of a core where a manifest says nothing.
    #[serde(default)]
    pub default_cpu_millis: u64,
    /// Memory where a manifest says nothing.
    #[serde(default)]
    pub default_memory: Option<Bytes>,
    /// User and group of the Pods, 65532 if absent; 0 leaves it to the cluster and the image.
    #[serde(default)]
    pub run_as: Option<u32>,
}

fn berth() -> String {
    "berth".to_owned()
}

/// Says what does not fit together.
pub(super) fn check(clusters: &[ClusterSettings], keys: &mut Keys) {
    let mut names = BTreeSet::new();
    for cluster in clusters {
        let name = &cluster.name;
        if !names.insert(name) {
            keys.wrong("cluster", format!("two clusters are named {name}"));
        }
        if cluster.kubeconfig.is_some() == cluster.in_cluster {
            keys.wrong(
                "cluster",
                format!("{name}: say either kubeconfig = \"FILE\" or in_cluster = true"),
            );
        }
        let host = cluster.endpoint.rsplit_once(':').map(|(host, _)| host);
        let local = |host: &str| {
            host == "localhost" || host.starts_with("127.") || host == "[::1]" || host.is_empty()
        };
        match host {
            None => keys.wrong("cluster", format!("{name}: endpoint must be HOST:PORT")),
            Some(host) if local(host) => keys.wrong(
                "cluster",
                format!(
                    "{name}: endpoint {:?} is every Pod's own loopback; name an address of this machine that \
                     Pods can dial",
                    cluster.endpoint
                ),
            ),
            Some(_) => {}
        }
    }
}
