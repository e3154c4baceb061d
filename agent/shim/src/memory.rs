//! Whether the kernel ended a process because memory ran out: by the counters of this shim's control group.
//!
//! A process that the kernel kills for memory looks like any that was sent SIGKILL; only the control group
//! (version 2 or 1) counts such kills. Reading them needs no right.

use std::fs;
use std::path::PathBuf;

use berth_shim::cgroup::{self, Group, Version};
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

fn names(group: &Group) -> Names {
    match group.version {
        Version::V1 => V1,
        Version::V2 => V2,
    }
}

impl Memory {
    /// Begins to count. Where there is no such control group, nothing is ever counted.
    pub(crate) fn new() -> Self {
        let group = cgroup::own("memory")
            .into_iter()
            .find(|group| group.dir.join(names(group).events).exists());
        let mut memory = Self { group, kills: 0 };
        memory.has_killed();
        memory
    }

    /// Whether the kernel has killed something here since it was last asked.
    pub(crate) fn has_killed(&mut self) -> bool {
        let Some(group) = &self.group else {
            return false;
        };
        let events = fs::read_to_string(group.dir.join(names(group).events)).unwrap_or_default();
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
            .filter_map(|dir| number(dir.join(names(group).limit)));
        MemoryState {
            limit: limits.filter(|limit| *limit < UNLIMITED).min(),
            peak: number(group.dir.join(names(group).peak)),
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

#[cfg(test)]
mod tests {
    use super::*;

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
                version: Version::V2,
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
