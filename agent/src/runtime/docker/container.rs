//! From a launch to a container: what Docker is told. Pure.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bollard::models::{
    ContainerCreateBody, DeviceRequest, HealthConfig, HostConfig, HostConfigLogConfig, Mount,
    MountType, RestartPolicy, RestartPolicyNameEnum,
};
use sha2::{Digest, Sha256};

use super::host::SUPERVISOR_FILE;
use crate::runtime::marker::MARKER_FILE;
use crate::runtime::{Container, Launch, PACKAGE};

/// Where the shim is in a container.
pub(super) const SHIM: &str = "/berth/bin/berth-shim";

/// Label with the agent's data folder: what bears it is this agent's.
pub(super) const LABEL_DATA: &str = "io.berth.data";

/// Label with the start folder.
pub(super) const LABEL_DIR: &str = "io.berth.dir";

/// Time beyond the stop grace before a daemon that shuts down kills the container.
const STOP_MARGIN: u64 = 5;

/// What all containers of an agent have in common.
#[derive(Debug, Clone)]
pub(super) struct Common {
    /// The static shim on this machine.
    pub(super) shim: PathBuf,
    /// The agent's data folder.
    pub(super) data: PathBuf,
    /// Who modules run as.
    pub(super) user: (u32, u32),
    /// Most processes and threads.
    pub(super) pids: u32,
    /// Further labels: fleet and node.
    pub(super) labels: Vec<(String, String)>,
}

/// The name of a start's container. A create that is tried again makes no second one; two fleets on one machine have
/// different folders.
pub(super) fn name(instance: &str, start: u32, dir: &Path) -> String {
    let digest = Sha256::digest(dir.as_os_str().as_encoded_bytes());
    format!("berth-{instance}-{start}-{}", hex::encode(&digest[..4]))
}

/// What Docker is told. `dir` is the start folder's canonical path.
pub(super) fn body(
    common: &Common,
    launch: &Launch,
    container: &Container,
    dir: &Path,
) -> ContainerCreateBody {
    let start = launch.spec.start;
    let mut labels: HashMap<String, String> = common.labels.iter().cloned().collect();
    labels.extend([
        (LABEL_DATA.to_owned(), text(&common.data)),
        (LABEL_DIR.to_owned(), text(dir)),
        ("io.berth.instance".to_owned(), launch.spec.instance.clone()),
        ("io.berth.start".to_owned(), start.to_string()),
    ]);
    let (uid, gid) = common.user;
    let grace = launch.spec.stop_grace_ms.div_ceil(1000);
    ContainerCreateBody {
        image: Some(container.image.clone()),
        entrypoint: Some(vec![
            SHIM.to_owned(),
            "run".to_owned(),
            "--dir".to_owned(),
            text(dir),
        ]),
        cmd: Some(Vec::new()),
        user: Some(format!("{uid}:{gid}")),
        working_dir: Some("/".to_owned()),
        labels: Some(labels),
        // The image's own check knows nothing of PORT.
        healthcheck: Some(HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        }),
        stop_signal: Some("SIGTERM".to_owned()),
        stop_timeout: i64::try_from(grace.saturating_add(STOP_MARGIN)).ok(),
        host_config: Some(host_config(common, container, dir)),
        ..ContainerCreateBody::default()
    }
}

fn host_config(common: &Common, container: &Container, dir: &Path) -> HostConfig {
    let resources = &container.resources;
    let memory = i64::try_from(resources.memory_bytes)
        .ok()
        .filter(|bytes| *bytes > 0);
    let cpu = i64::try_from(resources.cpu_millis.saturating_mul(1_000_000))
        .ok()
        .filter(|nanos| *nanos > 0);
    HostConfig {
        mounts: Some(mounts(common, container, dir)),
        // HOST and PORT mean the same as for a process, and health checks and gateways reach it likewise.
        network_mode: Some("host".to_owned()),
        readonly_rootfs: Some(true),
        tmpfs: Some(HashMap::from([(
            "/tmp".to_owned(),
            "rw,nosuid,nodev,mode=1777".to_owned(),
        )])),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        privileged: Some(false),
        ipc_mode: Some("private".to_owned()),
        // The shim is the first process and reaps.
        init: Some(false),
        memory,
        // The same: no swap beyond it.
        memory_swap: memory,
        nano_cpus: cpu,
        pids_limit: Some(i64::from(common.pids)),
        device_requests: (resources.gpus > 0).then(|| {
            let named = !container.gpus.is_empty();
            vec![DeviceRequest {
                count: (!named).then_some(i64::from(resources.gpus)),
                device_ids: named.then(|| container.gpus.clone()),
                capabilities: Some(vec![vec!["gpu".to_owned()]]),
                ..DeviceRequest::default()
            }]
        }),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        // The shim keeps every line; a second copy would only fill the disk.
        log_config: Some(HostConfigLogConfig {
            typ: Some("none".to_owned()),
            config: None,
        }),
        ..HostConfig::default()
    }
}

fn mounts(common: &Common, container: &Container, dir: &Path) -> Vec<Mount> {
    let bind = |source: &Path, target: &Path, read_only: bool| Mount {
        typ: Some(MountType::BIND),
        source: Some(text(source)),
        target: Some(text(target)),
        read_only: Some(read_only),
        ..Mount::default()
    };
    let mut mounts = vec![
        bind(&common.shim, Path::new(SHIM), true),
        bind(&container.package, Path::new(PACKAGE), true),
        bind(dir, dir, false),
    ];
    // What this agent believes without asking anybody must not be changed by a module.
    for file in [MARKER_FILE, SUPERVISOR_FILE] {
        let file = dir.join(file);
        mounts.push(bind(&file, &file, true));
    }
    mounts.extend(
        container
            .writable
            .iter()
            .map(|path| bind(path, path, false)),
    );
    mounts.extend(container.readable.iter().map(|path| bind(path, path, true)));
    mounts
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use berth_model::resources::Resources;

    use super::*;
    use crate::runtime::conformance;

    fn told(resources: Resources) -> ContainerCreateBody {
        with_gpus(resources, &[])
    }

    fn with_gpus(resources: Resources, gpus: &[&str]) -> ContainerCreateBody {
        let common = Common {
            shim: "/usr/bin/berth-shim".into(),
            data: "/data".into(),
            user: (65_532, 65_532),
            pids: 100,
            labels: vec![("io.berth.node".into(), "n1".into())],
        };
        let dir = Path::new("/data/instances/a.1.0.1/starts/1");
        let launch = conformance::shell(dir, "exit 0");
        let container = Container {
            image: "x".into(),
            package: "/data/packages/p".into(),
            writable: vec!["/data/instances/a.1.0.1/work".into()],
            readable: Vec::new(),
            resources,
            gpus: gpus.iter().map(|gpu| (*gpu).to_owned()).collect(),
        };
        body(&common, &launch, &container, dir)
    }

    #[test]
    fn a_container_may_do_nothing_that_it_does_not_need() {
        let told = told(Resources::default());
        assert_eq!(told.user.as_deref(), Some("65532:65532"));
        let host = told.host_config.unwrap();
        assert_eq!(host.readonly_rootfs, Some(true));
        assert_eq!(host.cap_drop.unwrap(), ["ALL"]);
        assert_eq!(host.security_opt.unwrap(), ["no-new-privileges"]);
        assert_eq!((host.memory, host.nano_cpus), (None, None));
        assert_eq!(host.pids_limit, Some(100));
        assert_eq!(host.log_config.unwrap().typ.as_deref(), Some("none"));
        assert!(host.device_requests.is_none() && host.binds.is_none());
        let writable: Vec<_> = host
            .mounts
            .unwrap()
            .into_iter()
            .filter(|mount| mount.read_only != Some(true))
            .map(|mount| mount.target.unwrap())
            .collect();
        assert_eq!(
            writable,
            [
                "/data/instances/a.1.0.1/starts/1",
                "/data/instances/a.1.0.1/work"
            ]
        );
    }

    #[test]
    fn resources_become_limits() {
        let host = told(Resources {
            cpu_millis: 1_500,
            memory_bytes: 64 << 20,
            gpus: 2,
            disk_bytes: 1,
        })
        .host_config
        .unwrap();
        assert_eq!(host.memory, Some(64 << 20));
        assert_eq!(host.memory_swap, host.memory);
        assert_eq!(host.nano_cpus, Some(1_500_000_000));
        assert_eq!(host.device_requests.unwrap()[0].count, Some(2));
    }

    #[test]
    fn a_container_gets_the_gpus_that_are_its_own() {
        let resources = Resources {
            gpus: 1,
            ..Resources::default()
        };
        let told = with_gpus(resources, &["GPU-7"]);
        let requests = told.host_config.unwrap().device_requests.unwrap();
        assert_eq!(requests[0].device_ids, Some(vec!["GPU-7".to_owned()]));
        assert_eq!(requests[0].count, None);
    }

    #[test]
    fn names_tell_instances_starts_and_folders_apart() {
        let all = [
            name("a.1.0.1", 1, Path::new("/x")),
            name("a.1.0.1", 2, Path::new("/x")),
            name("a.1.0.1", 1, Path::new("/y")),
        ];
        assert!(all[0].starts_with("berth-a.1.0.1-1-"));
        assert!(all[0] != all[1] && all[0] != all[2]);
        assert_eq!(all[0], name("a.1.0.1", 1, Path::new("/x")));
    }
}
