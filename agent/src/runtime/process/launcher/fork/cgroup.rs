//! Control groups that the agent makes itself, below its own: of version 2, or of version 1 where that is what there is.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_shim::cgroup::{self, Group, Version};
use berth_shim::identity::{self, Signal};

use crate::runtime::RuntimeError;
use crate::runtime::process::io_error;

/// The group below the agent's own that holds those of instances.
const ALL: &str = "berth-instances";

/// Where the agent goes itself in version 2, as a group with controllers below must have no process of its own.
const SELF: &str = "berth-agent";

/// Controllers that limit something.
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];

/// How long killed processes may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Microseconds in which the allowed processor time is counted.
const PERIOD: u64 = 100_000;

/// What a start may use; zero is no limit.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Limits {
    pub(super) memory: u64,
    pub(super) cpu_millis: u64,
    pub(super) tasks: u64,
}

/// A group in which groups of instances are made, for one or all controllers.
#[derive(Debug, Clone)]
struct Parent {
    dir: PathBuf,
    version: Version,
    controllers: Vec<&'static str>,
}

/// Where groups can be made on this machine.
#[derive(Debug, Default)]
pub(super) struct Groups {
    parents: Vec<Parent>,
    /// Controllers without one, with why.
    missing: Vec<(&'static str, String)>,
}

impl Groups {
    /// Finds and makes the groups of this agent.
    pub(super) fn find() -> Self {
        let mut groups = Self::default();
        for controller in CONTROLLERS {
            match find(controller) {
                Ok(parent) => groups.add(controller, parent),
                Err(why) => groups.missing.push((controller, why)),
            }
        }
        groups
    }

    fn add(&mut self, controller: &'static str, parent: Parent) {
        let mut known = self.parents.iter_mut();
        match known.find(|known| known.dir == parent.dir) {
            Some(known) => known.controllers.push(controller),
            None => self.parents.push(parent),
        }
    }

    /// Why a controller cannot be used, if it cannot.
    pub(super) fn missing(&self, controller: &str) -> Option<String> {
        let missing = self.missing.iter().find(|(name, _)| *name == controller);
        missing.map(|(_, why)| why.clone())
    }

    /// Whether processes and threads can be counted.
    pub(super) fn limit_tasks(&self) -> bool {
        self.missing("pids").is_none()
    }

    /// The folders of a start's groups.
    pub(super) fn paths(&self, name: &str) -> Vec<PathBuf> {
        self.parents
            .iter()
            .map(|parent| parent.dir.join(name))
            .collect()
    }

    /// Makes a start's groups with their limits.
    pub(super) fn make(&self, name: &str, limits: &Limits) -> io::Result<()> {
        for parent in &self.parents {
            let dir = parent.dir.join(name);
            fs::create_dir_all(&dir)?;
            for controller in &parent.controllers {
                limit(&dir, parent.version, controller, limits)?;
            }
        }
        Ok(())
    }
}

fn write(dir: &Path, file: &str, text: impl ToString) -> io::Result<()> {
    let failed = |error: io::Error| {
        let text = format!("cannot write {}: {error}", dir.join(file).display());
        io::Error::new(error.kind(), text)
    };
    fs::write(dir.join(file), text.to_string()).map_err(failed)
}

fn limit(dir: &Path, version: Version, controller: &str, limits: &Limits) -> io::Result<()> {
    let quota = limits.cpu_millis.saturating_mul(PERIOD) / 1000;
    match (controller, version) {
        ("memory", _) if limits.memory == 0 => Ok(()),
        ("memory", Version::V2) => {
            write(dir, "memory.max", limits.memory)?;
            // Absent where the kernel does no swapping.
            let _ = write(dir, "memory.swap.max", 0);
            Ok(())
        }
        ("memory", Version::V1) => {
            write(dir, "memory.limit_in_bytes", limits.memory)?;
            let _ = write(dir, "memory.memsw.limit_in_bytes", limits.memory);
            Ok(())
        }
        ("cpu", _) if limits.cpu_millis == 0 => Ok(()),
        ("cpu", Version::V2) => write(dir, "cpu.max", format!("{quota} {PERIOD}")),
        ("cpu", Version::V1) => {
            write(dir, "cpu.cfs_period_us", PERIOD)?;
            write(dir, "cpu.cfs_quota_us", quota)
        }
        _ => write(dir, "pids.max", limits.tasks),
    }
}

/// The file of a controller without which it limits nothing.
fn file(controller: &str, version: Version) -> &'static str {
    match (controller, version) {
        ("memory", Version::V2) => "memory.max",
        ("memory", Version::V1) => "memory.limit_in_bytes",
        ("cpu", Version::V2) => "cpu.max",
        ("cpu", Version::V1) => "cpu.cfs_quota_us",
        _ => "pids.max",
    }
}

/// Where groups for a controller can be made. Errors: why nowhere.
fn find(controller: &'static str) -> Result<Parent, String> {
    let mut why = format!("the kernel has no control groups for {controller}");
    for group in cgroup::own(controller) {
        let found = match group.version {
            Version::V2 => below_v2(&group, controller),
            Version::V1 => below(&group.dir, Version::V1, controller),
        };
        match found {
            Ok(Some(parent)) => return Ok(parent),
            Ok(None) => {}
            Err(error) => {
                why = format!(
                    "no control group can be made in {}: {error}",
                    group.dir.display()
                )
            }
        }
    }
    Err(why)
}

/// Makes the group of all instances below another, if it gets the controller there.
fn below(dir: &Path, version: Version, controller: &'static str) -> io::Result<Option<Parent>> {
    let all = dir.join(ALL);
    fs::create_dir_all(&all)?;
    if version == Version::V2 {
        write(&all, "cgroup.subtree_control", format!("+{controller}"))?;
    }
    let probe = all.join(format!("probe-{}", std::process::id()));
    fs::create_dir_all(&probe)?;
    let has = probe.join(file(controller, version)).exists();
    fs::remove_dir(&probe)?;
    Ok(has.then(|| Parent {
        dir: all,
        version,
        controllers: vec![controller],
    }))
}

fn below_v2(group: &Group, controller: &'static str) -> io::Result<Option<Parent>> {
    // As an earlier agent left it.
    let dir = match group.dir.file_name() {
        Some(name) if name == SELF => group.dir.parent().unwrap_or(&group.dir),
        _ => &group.dir,
    };
    let controllers = fs::read_to_string(dir.join("cgroup.controllers"))?;
    if !controllers.split_whitespace().any(|one| one == controller) {
        return Ok(None);
    }
    let enable = || write(dir, "cgroup.subtree_control", format!("+{controller}"));
    match enable() {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            if Path::new("/run/systemd/system").exists() {
                return Err(io::Error::other(
                    "it is systemd's, which would not find the agent's processes in another",
                ));
            }
            step_aside(dir)?;
            enable()?;
        }
        other => other?,
    }
    below(dir, Version::V2, controller)
}

/// Moves every process of a group into one below.
fn step_aside(dir: &Path) -> io::Result<()> {
    let aside = dir.join(SELF);
    fs::create_dir_all(&aside)?;
    for pid in processes(dir)? {
        // One that is gone by now need not be moved.
        let _ = fs::write(aside.join("cgroup.procs"), pid.to_string());
    }
    Ok(())
}

fn processes(dir: &Path) -> io::Result<BTreeSet<u32>> {
    let text = fs::read_to_string(dir.join("cgroup.procs"))?;
    Ok(text.lines().filter_map(|pid| pid.parse().ok()).collect())
}

/// Kills what is in the groups, and removes them. Those that are gone are no error.
pub(in super::super) fn clear(groups: &[PathBuf]) -> Result<(), RuntimeError> {
    for group in groups {
        // Whoever multiplies must not be faster than who kills. Each file is of one version or controller, or of newer
        // kernels.
        let _ = write(group, "pids.max", 0);
        let _ = write(group, "cgroup.kill", 1);
    }
    let patience = Instant::now() + PATIENCE;
    for group in groups {
        let failed = || io_error(format!("clear the control group {}", group.display()));
        let mut pause = Duration::from_millis(1);
        loop {
            let living = match processes(group) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                other => other.map_err(failed())?,
            };
            for pid in &living {
                if let Ok(Some(process)) = identity::identify(*pid) {
                    let _ = identity::send_signal(process, Signal::KILL);
                }
            }
            // Busy as long as anything in it has not died altogether.
            match fs::remove_dir(group) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) if Instant::now() > patience => return Err(failed()(error)),
                Err(_) => {}
                Ok(()) => break,
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_what_the_version_writes() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits {
            memory: 64 << 20,
            cpu_millis: 1500,
            tasks: 32,
        };
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        for version in [Version::V1, Version::V2] {
            for controller in CONTROLLERS {
                limit(dir.path(), version, controller, &limits).unwrap();
            }
        }
        assert_eq!(read("memory.max"), "67108864");
        assert_eq!(read("memory.limit_in_bytes"), "67108864");
        assert_eq!(read("cpu.max"), "150000 100000");
        assert_eq!(read("cpu.cfs_quota_us"), "150000");
        assert_eq!(read("pids.max"), "32");
        let other = tempfile::tempdir().unwrap();
        limit(other.path(), Version::V2, "memory", &Limits::default()).unwrap();
        assert!(fs::read_dir(other.path()).unwrap().next().is_none());
    }

    #[test]
    fn groups_that_are_gone_are_cleared() {
        clear(&[PathBuf::from("/sys/fs/cgroup/no/such/group")]).unwrap();
    }
}
