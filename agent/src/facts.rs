//! What the agent finds out about its machine.

use std::path::Path;

use berth_model::node::{Facts, NodeKind, RuntimeKind};
use berth_model::resources::Resources;

use crate::config::Config;
use crate::tools;

mod gpu;
mod machine;
mod virtualization;
mod watch;

use virtualization::Clues;

pub(crate) use machine::{Sampler, memory};
pub(crate) use watch::GpuWatch;

/// This boot's id, empty where there is none.
pub fn boot_id() -> String {
    line("/proc/sys/kernel/random/boot_id")
}

/// The host's name, empty where there is none.
pub fn hostname() -> String {
    line("/proc/sys/kernel/hostname")
}

/// Looks around once; what the configuration says wins. `data` is on the file system whose size is the
/// node's disk. GPUs are looked for by `GpuWatch`, as that may take a while.
pub fn gather(config: &Config, data: &Path) -> Facts {
    let virtualization = Clues::read(Path::new("/"), virtualization::cpuid()).name();
    let found = match virtualization {
        Some(_) => NodeKind::Virtual,
        None => NodeKind::Physical,
    };
    let kind = config.kind.unwrap_or(found);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let release = line("/proc/sys/kernel/osrelease");
    let distribution = machine::distribution(&read("/etc/os-release"));
    Facts {
        kind,
        exclusive: config.exclusive.unwrap_or(kind == NodeKind::Virtual),
        capacity: Resources {
            cpu_millis: cores as u64 * 1000,
            memory_bytes: memory(),
            gpus: 0,
            disk_bytes: machine::disk(data),
        },
        labels: config.labels.clone(),
        runtimes: vec![RuntimeKind::Process],
        modules: tools::modules(config.model_server.as_deref()),
        hostname: hostname(),
        os: format!("{distribution}, Linux {release}"),
        arch: std::env::consts::ARCH.to_owned(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        machine_id: line("/etc/machine-id"),
        boot_id: boot_id(),
        conditions: Vec::new(),
        gpus: Vec::new(),
        virtualization: virtualization.map(str::to_owned),
        relay: None,
        isolation: None,
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn line(path: &str) -> String {
    read(path).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_something() {
        let config = Config {
            exclusive: Some(false),
            ..Config::default()
        };
        let facts = gather(&config, Path::new("/"));
        assert!(facts.capacity.cpu_millis >= 1000);
        assert!(facts.capacity.memory_bytes > 1 << 20);
        assert!(facts.capacity.disk_bytes > 1 << 20);
        assert!(!facts.exclusive);
        assert_eq!(facts.boot_id.len(), 36);
    }
}
