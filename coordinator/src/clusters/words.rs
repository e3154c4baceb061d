//! Between control's words and the adapter's.

use std::fmt::Write;

use berth_kubernetes::{Access, Cluster, ClusterConfig, ClusterState, Images, Shape, Work, WorkId};
use berth_model::resources::Resources;

use crate::config::ClusterSettings;
use crate::control::{Reach, WorkName, WorkOrder};

/// The adapter's configuration.
pub(super) fn config(settings: &ClusterSettings, fleet: &str) -> ClusterConfig {
    let access = match &settings.kubeconfig {
        Some(path) => Access::Kubeconfig {
            path: path.clone(),
            context: settings.context.clone(),
        },
        None => Access::InCluster,
    };
    let default = Images::default();
    let berth = match (&settings.image, &settings.registry) {
        (Some(image), _) => image.clone(),
        (None, Some(registry)) => format!("{}/{}", registry.trim_end_matches('/'), default.berth),
        (None, None) => default.berth,
    };
    let mut config = ClusterConfig::new(
        settings.name.clone(),
        fleet,
        access,
        settings.endpoint.clone(),
    );
    config.namespace.clone_from(&settings.namespace);
    config.images = Images {
        berth,
        python: settings.base_python.clone().unwrap_or(default.python),
        tf_serving: settings
            .base_tf_serving
            .clone()
            .unwrap_or(default.tf_serving),
        binary: settings.base_binary.clone().unwrap_or(default.binary),
    };
    config
        .image_pull_secrets
        .clone_from(&settings.image_pull_secrets);
    config.service_account.clone_from(&settings.service_account);
    config.node_selector.clone_from(&settings.node_selector);
    config.defaults = Resources {
        cpu_millis: settings.default_cpu_millis,
        memory_bytes: settings.default_memory.map_or(0, |bytes| bytes.0),
        ..Resources::default()
    };
    config.run_as = match settings.run_as {
        None => config.run_as,
        Some(0) => None,
        Some(id) => Some(i64::from(id)),
    };
    config
}

/// What the adapter calls a work.
pub(super) fn id(name: &WorkName) -> WorkId {
    match name {
        WorkName::Instance(id) => WorkId::Instance(id.clone()),
        WorkName::Job { name, born } => WorkId::Job {
            name: name.clone(),
            born: *born,
        },
    }
}

/// What the adapter is to make.
pub(super) fn work(name: &WorkName, order: &WorkOrder) -> Work {
    let token = order.token.clone();
    match name {
        WorkName::Instance(id) => Work::instance(id.clone(), &order.manifest, token),
        WorkName::Job { name, born } => {
            let shape = order.counted.map_or(Shape::Once, |counted| Shape::Counted {
                completions: counted.completions,
                parallelism: counted.parallelism,
                retries: counted.retries,
                deadline: counted.deadline,
            });
            Work::job(name.clone(), *born, shape, &order.manifest, token)
        }
    }
}

/// Whether it can be used.
pub(super) fn reach(state: &ClusterState) -> Reach {
    match state {
        ClusterState::Connecting => Reach::Connecting,
        ClusterState::Reachable { lacking, .. } => Reach::Ready {
            lacking: lacking.as_ref().map(ToString::to_string),
        },
        ClusterState::Unreachable { why, .. } => Reach::Unreachable {
            why: why.to_string(),
        },
    }
}

/// Requests to an API server for `/metrics`.
pub(super) fn figures(cluster: &Cluster) -> impl Fn(&mut String) + Send + Sync + 'static {
    let cluster = cluster.clone();
    move |text| {
        const NAME: &str = "berth_kubernetes_requests_total";
        let _ = writeln!(
            text,
            "# HELP {NAME} Requests to clusters' API servers, by outcome.\n# TYPE {NAME} counter"
        );
        for request in cluster.requests() {
            let _ = writeln!(
                text,
                "{NAME}{{cluster=\"{}\",verb=\"{}\",resource=\"{}\",outcome=\"{}\"}} {}",
                cluster.config().name,
                request.verb,
                request.resource,
                request.outcome,
                request.count
            );
        }
    }
}
