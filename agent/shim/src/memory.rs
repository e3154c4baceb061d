//! Whether the kernel ended a process because memory ran out: by the counters of this shim's control group.
//!
//! A process that the kernel kills for memory looks like any that was sent SIGKILL; only the control group
//! (version 2 or 1) counts such kills. Reading them needs no right.

use std::fs;
use std::path::{Path, PathBuf};

use berth_shim::state::MemoryState;

/// No limit, as version 1 writes it: a number near the largest there is.
const UNLIMITED: u64 = 1 << 62;

/// Names of a version's files.
#[derive(Debug, Clone, Copy)]
struct Names {
    events: &'static str,
    limit: &'static str,
    peak: &'static str,
}

const V2: Names = Names {
    events: "memory.events",
    limit: "memory.max",
    peak: "memory.peak",
};

const V1: Names = Names {
    events: "memory.oom_control",
    limit: "memory.limit_in_bytes",
    peak: "memory.max_usage_in_bytes",
};

/// The memory of this process's control group.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    group: Option<Group>,
    /// Kills that were counted when it was last looked.
    kills: u64,
}

#[derive(Debug)]
struct Group {
    dir: PathBuf,
    /// Where the hierarchy is mounted: limits of groups above hold too.
    top: PathBuf,
    names: Names,
}

impl Memory {
    /// Begins to count. Where there is no such control group, nothing is ever counted.
    pub(crate) fn new() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let groups = groups(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"));
        let group = groups
            .into_iter()
            .find(|group| group.dir.join(group.names.events).exists());
        let mut memory = Self { group, kills: 0 };
        memory.has_killed();
        memory
    }

    /// Whether the kernel has killed something here since it was last asked.
    pub(crate) fn has_killed(&mut self) -> bool {
        let Some(group) = &self.group else {
            return false;
        };
        let events = fs::read_to_string(group.dir.join(group.names.events)).unwrap_or_default();
        let kills = count(&events).unwrap_or(self.kills);
        let more = kills > self.kills;
        self.kills = kills;
        more
    }

    /// What may be used, and what was.
    pub(crate) fn figures(&self) -> MemoryState {
        let Some(group) = &self.group else {
            return MemoryState::default();
        };
        let number = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        let limits = group
            .dir
            .ancestors()
            .take_while(|dir| dir.starts_with(&group.top))
            .filter_map(|dir| number(dir.join(group.names.limit)));
        MemoryState {
            limit: limits.filter(|limit| *limit < UNLIMITED).min(),
            peak: number(group.dir.join(group.names.peak)),
        }
    }
}

/// `oom_kill N` of either version's file.
fn count(events: &str) -> Option<u64> {
    events
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "))?
        .trim()
        .parse()
        .ok()
}

/// The memory control groups of a process, by its `cgroup` and `mountinfo`: version 2 first.
fn groups(cgroup: &str, mountinfo: &str) -> Vec<Group> {
    let mut found = Vec::new();
    for line in cgroup.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let names = match controllers {
            "" => V2,
            list if list.split(',').any(|one| one == "memory") => V1,
            _ => continue,
        };
        let version_2 = controllers.is_empty();
        for mount in mountinfo.lines().filter_map(mounted) {
            let fits = if version_2 {
                mount.kind == "cgroup2"
            } else {
                mount.kind == "cgroup" && mount.options.split(',').any(|one| one == "memory")
            };
            if !fits {
                continue;
            }
            // A container sees its own group as the top, whether or not it sees its path as "/".
            let below = Path::new(path)
                .strip_prefix(mount.root)
                .unwrap_or(Path::new(""));
            let mut dir = PathBuf::from(mount.point);
            dir.extend(below);
            let group = Group {
                dir,
                top: mount.point.into(),
                names,
            };
            found.push(group);
        }
    }
    found.sort_by_key(|group| group.names.events != V2.events);
    found
}

struct Mounted<'a> {
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

/// One line of `mountinfo`.
fn mounted(line: &str) -> Option<Mounted<'_>> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let (root, point) = (before.next()?, before.next()?);
    let mut after = after.split(' ');
    let kind = after.next()?;
    let options = after.nth(1)?;
    Some(Mounted {
        root,
        point,
        kind,
        options,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
        24 1 0:20 / /sys/fs/cgroup ro shared:8 - tmpfs tmpfs ro\n\
        30 24 0:25 /docker/abc /sys/fs/cgroup/memory ro,nosuid master:9 - cgroup cgroup rw,memory\n\
        31 24 0:26 / /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n\
        32 24 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    fn dirs(cgroup: &str, mountinfo: &str) -> Vec<String> {
        let groups = groups(cgroup, mountinfo);
        groups.iter().map(|g| g.dir.display().to_string()).collect()
    }

    #[test]
    fn the_group_is_found_in_either_version_in_and_outside_of_containers() {
        let expected = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory"];
        // The container's group by the host's path, and by its own.
        assert_eq!(
            dirs("4:cpu:/x\n3:memory:/docker/abc\n0::/\n", HYBRID),
            expected
        );
        assert_eq!(dirs("3:memory:/\n0::/\n", HYBRID), expected);
        let v2 = "32 24 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(
            dirs("0::/system.slice/berth-agent.service\n", v2),
            ["/sys/fs/cgroup/system.slice/berth-agent.service"]
        );
        assert_eq!(dirs("rubbish\n::\n", "rubbish - \n"), [""; 0]);
    }

    #[test]
    fn kills_are_read_from_either_versions_file() {
        assert_eq!(count("low 0\noom 3\noom_kill 2\n"), Some(2));
        assert_eq!(
            count("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"),
            Some(7)
        );
        assert_eq!(count("oom_kill_disable 0\n"), None);
    }

    #[test]
    fn only_news_count() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("memory.events", "oom_kill 4\n");
        let mut memory = Memory {
            group: Some(Group {
                dir: dir.path().into(),
                top: dir.path().into(),
                names: V2,
            }),
            kills: 4,
        };
        assert!(!memory.has_killed());
        write("memory.events", "oom_kill 5\n");
        assert!(memory.has_killed());
        assert!(!memory.has_killed());
        write("memory.max", "max\n");
        assert_eq!(memory.figures(), MemoryState::default());
        write("memory.max", "1048576\n");
        write("memory.peak", "1048000\n");
        let figures = MemoryState {
            limit: Some(1_048_576),
            peak: Some(1_048_000),
        };
        assert_eq!(memory.figures(), figures);
    }
}
