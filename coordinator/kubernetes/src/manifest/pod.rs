//! The Pod: an init container that brings Berth's programs and the package, and the module's container.

use std::collections::BTreeMap;

use berth_model::resources::Resources;
use k8s_openapi::api::core::v1::{
    Capabilities, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, LocalObjectReference,
    ObjectFieldSelector, PodSecurityContext, PodSpec, ResourceRequirements, SeccompProfile,
    SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::config::ClusterConfig;
use crate::work::Work;

/// Name of the init container: `berth-agent pod prepare`.
pub const PREPARE: &str = "prepare";
/// Name of the module's container: `berth-agent pod run`.
pub const MODULE: &str = "module";

/// The agent's time, beyond the module's own, to ship the last lines and report the end.
const STOP_MARGIN_SECS: u64 = 20;

/// (volume, where it is mounted). The root is read-only; a module's writable places are these.
const FOLDERS: [(&str, &str); 3] = [
    ("bin", "/berth/bin"),
    ("data", "/berth/data"),
    ("tmp", "/tmp"),
];

pub(super) fn spec(work: &Work, cluster: &ClusterConfig) -> PodSpec {
    let base = cluster.images.base(work.base);
    let module_image = work.image.as_deref().unwrap_or(base);
    let asked = with_defaults(work.resources, cluster.defaults);
    let mut told = environment(cluster);
    let run = container(
        MODULE,
        module_image,
        ["/berth/bin/berth-agent", "pod", "run"],
        told.clone(),
        asked,
    );
    // Only who joins needs the token; the module never sees it.
    told.push(EnvVar {
        name: "BERTH_POD_TOKEN".to_owned(),
        value: Some(work.token.clone()),
        value_from: None,
    });
    // Quotas may demand amounts of every container; a GPU is of no use to this one.
    let without_gpu = Resources { gpus: 0, ..asked };
    let prepare = container(
        PREPARE,
        &cluster.images.berth,
        ["/berth-agent", "pod", "prepare"],
        told,
        without_gpu,
    );
    let grace = work.stop_grace.as_millis().div_ceil(1000) + STOP_MARGIN_SECS;
    PodSpec {
        init_containers: Some(vec![prepare]),
        containers: vec![run],
        restart_policy: Some("Never".to_owned()),
        termination_grace_period_seconds: Some(i64::try_from(grace).unwrap_or(i64::MAX)),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        service_account_name: cluster.service_account.clone(),
        node_selector: some(cluster.node_selector.clone()),
        image_pull_secrets: (!cluster.image_pull_secrets.is_empty()).then(|| {
            cluster
                .image_pull_secrets
                .iter()
                .map(|name| LocalObjectReference { name: name.clone() })
                .collect()
        }),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: cluster.run_as,
            run_as_group: cluster.run_as,
            fs_group: cluster.run_as,
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        volumes: Some(
            FOLDERS
                .iter()
                .map(|(name, _)| Volume {
                    name: (*name).to_owned(),
                    empty_dir: Some(EmptyDirVolumeSource::default()),
                    ..Volume::default()
                })
                .collect(),
        ),
        ..PodSpec::default()
    }
}

fn container(
    container: &str,
    image: &str,
    command: [&str; 3],
    env: Vec<EnvVar>,
    asked: Resources,
) -> Container {
    let amounts = some(quantities(asked));
    Container {
        name: container.to_owned(),
        image: Some(image.to_owned()),
        command: Some(command.map(str::to_owned).into()),
        env: Some(env),
        resources: Some(ResourceRequirements {
            requests: amounts.clone(),
            limits: amounts,
            claims: None,
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                add: None,
                drop: Some(vec!["ALL".to_owned()]),
            }),
            ..SecurityContext::default()
        }),
        // The last lines of a container that failed come with the watch: no request for its log is needed.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(
            FOLDERS
                .iter()
                .map(|(name, path)| VolumeMount {
                    name: (*name).to_owned(),
                    mount_path: (*path).to_owned(),
                    // Berth's own programs are nothing that a module may change.
                    read_only: (container == MODULE && *name == "bin").then_some(true),
                    ..VolumeMount::default()
                })
                .collect(),
        ),
        ..Container::default()
    }
}

/// What `berth-agent pod` is told. A Pod's identity is its Job's UID, which the Job's controller puts on every
/// Pod as a label; that of the older name is there in every version.
fn environment(cluster: &ClusterConfig) -> Vec<EnvVar> {
    let plain = |name: &str, value: String| EnvVar {
        name: name.to_owned(),
        value: Some(value),
        value_from: None,
    };
    let field = |name: &str, path: &str| EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".to_owned()),
                field_path: path.to_owned(),
            }),
            ..EnvVarSource::default()
        }),
    };
    vec![
        plain("BERTH_ENDPOINT", cluster.endpoint.clone()),
        plain("BERTH_CLUSTER", cluster.name.to_string()),
        field("BERTH_JOB_UID", "metadata.labels['controller-uid']"),
        field("POD_UID", "metadata.uid"),
        field("POD_NAME", "metadata.name"),
        field("POD_IP", "status.podIP"),
    ]
}

fn with_defaults(asked: Resources, defaults: Resources) -> Resources {
    let or = |amount: u64, default: u64| if amount == 0 { default } else { amount };
    Resources {
        cpu_millis: or(asked.cpu_millis, defaults.cpu_millis),
        memory_bytes: or(asked.memory_bytes, defaults.memory_bytes),
        gpus: if asked.gpus == 0 {
            defaults.gpus
        } else {
            asked.gpus
        },
        disk_bytes: or(asked.disk_bytes, defaults.disk_bytes),
    }
}

/// Requests and limits are the same amounts: what was promised to an instance is what it gets.
fn quantities(asked: Resources) -> BTreeMap<String, Quantity> {
    [
        ("cpu", asked.cpu_millis, "m"),
        ("memory", asked.memory_bytes, ""),
        ("nvidia.com/gpu", u64::from(asked.gpus), ""),
        ("ephemeral-storage", asked.disk_bytes, ""),
    ]
    .into_iter()
    .filter(|(_, amount, _)| *amount > 0)
    .map(|(name, amount, unit)| (name.to_owned(), Quantity(format!("{amount}{unit}"))))
    .collect()
}

fn some<K, V>(map: BTreeMap<K, V>) -> Option<BTreeMap<K, V>> {
    (!map.is_empty()).then_some(map)
}
