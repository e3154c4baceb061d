//! What is configured of a cluster: plain data, from `[[cluster]]` of `coordinator.toml`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use berth_model::id::ClusterName;
use berth_model::resources::Resources;

use crate::work::Base;

/// One configured cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Its name in Berth.
    pub name: ClusterName,
    /// Whose Jobs are ours: the fleet's identity, any text that is the same after a restart. Two fleets that
    /// share a namespace never touch each other's Jobs.
    pub fleet: String,
    /// How its API server is reached.
    pub access: Access,
    /// The namespace of all of Berth's Jobs. It must exist.
    pub namespace: String,
    /// The address at which Pods reach the coordinator, `HOST:PORT`.
    pub endpoint: String,
    /// Images.
    pub images: Images,
    /// Secrets in the namespace that hold credentials for the images' registries.
    pub image_pull_secrets: Vec<String>,
    /// The Pods' service account; its token is never mounted.
    pub service_account: Option<String>,
    /// Labels that a machine of the cluster must have.
    pub node_selector: BTreeMap<String, String>,
    /// What is asked for where a manifest says nothing (an amount of zero).
    pub defaults: Resources,
    /// The user and group that Pods run as. None leaves it to the cluster (OpenShift hands out its own) and to
    /// the image, which must then name a numeric user that is not root.
    pub run_as: Option<i64>,
}

impl ClusterConfig {
    /// A configuration with everything optional left at its default.
    pub fn new(
        name: ClusterName,
        fleet: impl Into<String>,
        access: Access,
        endpoint: impl Into<String>,
    ) -> Self {
        Self {
            name,
            fleet: fleet.into(),
            access,
            namespace: "berth".to_owned(),
            endpoint: endpoint.into(),
            images: Images::default(),
            image_pull_secrets: Vec::new(),
            service_account: None,
            node_selector: BTreeMap::new(),
            defaults: Resources::default(),
            run_as: Some(65532),
        }
    }
}

/// How an API server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// By a kubeconfig file.
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// The context in it; none means its current one.
        context: Option<String>,
    },
    /// The coordinator runs in the cluster itself and uses its Pod's service account.
    InCluster,
}

/// The images that Pods are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// Berth's own, as `cargo xtask image` makes it.
    pub berth: String,
    /// For modules with `preset = "python"` that name no image.
    pub python: String,
    /// For modules of kind `tf-serving` that name no image.
    pub tf_serving: String,
    /// For everything else that names no image.
    pub binary: String,
}

impl Images {
    /// The configured base image.
    pub fn base(&self, base: Base) -> &str {
        match base {
            Base::Python => &self.python,
            Base::TfServing => &self.tf_serving,
            Base::Binary => &self.binary,
        }
    }
}

impl Default for Images {
    fn default() -> Self {
        Self {
            berth: concat!("berth-pod:", env!("CARGO_PKG_VERSION")).to_owned(),
            python: "python:3.12-slim".to_owned(),
            tf_serving: "tensorflow/serving:2.19.1".to_owned(),
            binary: "debian:12-slim".to_owned(),
        }
    }
}
