//! How single facts are read.

use std::path::Path;

use berth_model::node::NodeStatistics;
use sysinfo::{MemoryRefreshKind, System};

/// Bytes of the machine's memory, or less where the agent itself is confined: that is what the node has. Zero where the
/// system does not tell.
pub(crate) fn memory() -> u64 {
    memory_of(system().as_mut()).0
}

fn system() -> Option<System> {
    System::new()
        .map_err(|error| tracing::warn!(?error, "the system does not tell of its memory"))
        .ok()
}

/// All, used and available.
fn memory_of(system: Option<&mut System>) -> (u64, u64, u64) {
    let Some(system) = system else {
        return (0, 0, 0);
    };
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    let machine = (
        system.total_memory(),
        system.used_memory(),
        system.available_memory(),
    );
    let group = system.cgroup_limits().map(|group| {
        let available = group.total_memory.saturating_sub(group.rss);
        (group.total_memory, group.rss, available)
    });
    less(machine, group)
}

/// What holds where a control group may have less than the machine.
fn less(machine: (u64, u64, u64), group: Option<(u64, u64, u64)>) -> (u64, u64, u64) {
    match group {
        Some((total, used, available)) if total < machine.0 => {
            (total, used, available.min(machine.2))
        }
        _ => machine,
    }
}

/// Bytes of the file system on which a path lies.
pub(super) fn disk(path: &Path) -> u64 {
    crate::disk::Room::of(path).map_or(0, |room| room.total)
}

/// Looks at what changes all the time. It keeps what it would have to find out anew at each look.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    system: Option<System>,
}

impl Sampler {
    /// What is so now; `data` is on the file system that counts. Of packages, GPUs and the relay others know.
    pub(crate) fn sample(&mut self, data: &Path) -> NodeStatistics {
        if self.system.is_none() {
            self.system = system();
        }
        let (_, memory_used_bytes, memory_available_bytes) = memory_of(self.system.as_mut());
        let load = System::load_average().map_or([0.0; 3], |l| [l.one, l.five, l.fifteen]);
        let room = crate::disk::Room::of(data).unwrap_or_default();
        NodeStatistics {
            load,
            uptime_secs: System::uptime().unwrap_or_default(),
            memory_used_bytes,
            memory_available_bytes,
            disk_total_bytes: room.total,
            disk_free_bytes: room.free,
            packages_bytes: 0,
            gpus: Vec::new(),
            relay: None,
        }
    }
}

/// PRETTY_NAME of an os-release file.
pub(super) fn distribution(os_release: &str) -> String {
    os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or("unknown", |name| name.trim_matches('"'))
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_what_the_machine_or_the_control_group_has() {
        let machine = (100, 60, 40);
        assert_eq!(less(machine, None), machine);
        assert_eq!(less(machine, Some((100, 1, 99))), machine);
        // However much the group may have, the machine's memory is not more than it is.
        assert_eq!(less(machine, Some((80, 5, 75))), (80, 5, 40));
        assert_eq!(less(machine, Some((20, 5, 15))), (20, 5, 15));
    }

    #[test]
    fn what_is_said_of_this_machine_fits_together() {
        let said = Sampler::default().sample(Path::new("/"));
        assert!(said.memory_used_bytes > 0);
        assert!(said.memory_used_bytes + said.memory_available_bytes <= 2 * memory());
        assert!(said.uptime_secs > 0);
        assert!(said.load.iter().all(|load| (0.0..10_000.0).contains(load)));
        assert!(said.disk_free_bytes <= said.disk_total_bytes);
    }

    #[test]
    fn the_distribution_is_its_pretty_name() {
        assert_eq!(
            distribution("NAME=x\nPRETTY_NAME=\"Debian 12\"\n"),
            "Debian 12"
        );
        assert_eq!(distribution(""), "unknown");
    }
}
