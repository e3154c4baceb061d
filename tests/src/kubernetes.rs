//! The tests' Kubernetes as a cluster of a coordinator.

use anyhow::{Context, Result};

/// The kubeconfig of an administrator, from `BERTH_TEST_KUBECONFIG`; none where there is no cluster.
pub fn kubeconfig() -> Option<String> {
    std::env::var("BERTH_TEST_KUBECONFIG")
        .ok()
        .filter(|path| !path.is_empty())
}

/// The host's address on the bridge that Pods are on: `BERTH_TEST_POD_HOST`, else that of
/// `tests/platform/kubernetes.sh`.
fn host() -> String {
    std::env::var("BERTH_TEST_POD_HOST").unwrap_or_else(|_| "10.244.0.1".to_owned())
}

/// The `[[cluster]]` named `k8s` for a coordinator on a port. Its images are those that `cargo xtask test`
/// loads.
pub(crate) fn cluster(port: u16) -> Result<String> {
    let kubeconfig = kubeconfig().context("BERTH_TEST_KUBECONFIG is not set")?;
    let host = host();
    Ok(format!(
        "[[cluster]]\nname = \"k8s\"\nkubeconfig = \"{kubeconfig}\"\nnamespace = \"default\"\n\
         endpoint = \"{host}:{port}\"\nimage = \"berth-pod:{version}\"\n\
         base_python = \"localhost/berth-test/python:1\"\nbase_binary = \"localhost/berth-test/python:1\"\n\
         base_tf_serving = \"localhost/berth-test/tf-serving:1\"\n",
        version = env!("CARGO_PKG_VERSION"),
    ))
}
