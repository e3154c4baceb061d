//! `[isolation]` of `agent.toml`.

use std::path::PathBuf;
use std::str::FromStr;

use super::Reader;

/// How instances that are plain processes are kept from each other and from the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsolationConfig {
    /// `launcher`: what starts them.
    pub launcher: LauncherChoice,
    /// `users`: users that may be given out where systemd does not do that, `"FIRST-LAST"`.
    pub users: UserRange,
    /// `tasks`: most processes and threads of an instance.
    pub tasks: u32,
    /// `readable`: further files and folders that every instance may read.
    pub readable: Vec<PathBuf>,
    /// `hidden`: further folders that no instance may see.
    pub hidden: Vec<PathBuf>,
}

/// What starts instances that are plain processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LauncherChoice {
    /// systemd where it can be had, else the agent itself.
    #[default]
    Auto,
    /// Transient units of systemd, and nothing else.
    Systemd,
    /// The agent itself.
    Fork,
    /// The agent itself, without any isolation.
    None,
}

/// Users from a first to a last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserRange {
    first: u32,
    last: u32,
}

impl UserRange {
    /// The first and the last.
    pub fn bounds(self) -> (u32, u32) {
        (self.first, self.last)
    }
}

impl FromStr for UserRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bounds = text.split_once('-');
        let numbers = bounds.and_then(|(first, last)| {
            Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
        });
        // Not the system's, and not the two that mean "nobody" to system calls.
        let usable =
            |&(first, last): &(u32, u32)| first >= 1000 && first <= last && last < u32::MAX - 1;
        let (first, last) = numbers.filter(usable).ok_or_else(|| {
            format!("{text:?} is no range of users: write \"FIRST-LAST\", from 1000 on")
        })?;
        Ok(Self { first, last })
    }
}

impl Default for IsolationConfig {
    fn default() -> Self {
        Self {
            launcher: LauncherChoice::Auto,
            // In a part that systemd's conventions leave to nobody.
            users: UserRange {
                first: 1_900_000_000,
                last: 1_900_009_999,
            },
            tasks: 4096,
            readable: Vec::new(),
            hidden: Vec::new(),
        }
    }
}

const KEYS: [&str; 5] = ["launcher", "users", "tasks", "readable", "hidden"];

impl IsolationConfig {
    /// Takes the section out of the configuration; mistakes are added to the reader's.
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let default = Self::default();
        let Some(mut inner) = reader.section("isolation") else {
            return default;
        };
        let config = Self {
            launcher: inner
                .take(
                    "launcher",
                    "\"auto\", \"systemd\", \"fork\" or \"none\"",
                    |value| match value.as_str()? {
                        "auto" => Some(LauncherChoice::Auto),
                        "systemd" => Some(LauncherChoice::Systemd),
                        "fork" => Some(LauncherChoice::Fork),
                        "none" => Some(LauncherChoice::None),
                        _ => None,
                    },
                )
                .unwrap_or_default(),
            users: inner.parsed("users").unwrap_or(default.users),
            tasks: inner
                .take("tasks", "a number from 16 on", |value| {
                    let tasks = u32::try_from(value.as_integer()?).ok()?;
                    (tasks >= 16).then_some(tasks)
                })
                .unwrap_or(default.tasks),
            readable: inner.paths("readable"),
            hidden: inner.paths("hidden"),
        };
        reader.close("isolation", inner, &KEYS);
        config
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, ConfigErrors};

    use super::*;

    #[test]
    fn the_section_is_read_and_its_mistakes_are_named() {
        let text = "[isolation]\nlauncher = \"fork\"\nusers = \"5000-5999\"\ntasks = 64\n\
                    readable = [\"/data/models\"]\nhidden = [\"/srv/keys\"]\n";
        let isolation = Config::parse(text, "x").unwrap().isolation;
        assert_eq!(isolation.launcher, LauncherChoice::Fork);
        assert_eq!(isolation.users.bounds(), (5000, 5999));
        assert_eq!(isolation.tasks, 64);
        assert_eq!(isolation.readable, [PathBuf::from("/data/models")]);
        assert_eq!(isolation.hidden, [PathBuf::from("/srv/keys")]);
        let text = "[isolation]\nlauncher = \"docker\"\nusers = \"5-9\"\ntasks = 1\nreadable = [\"a\"]\n\
                    hidden = \"/x\"\ntypo = 1\n";
        let ConfigErrors(errors) = Config::parse(text, "x").unwrap_err();
        assert_eq!(errors.len(), 6, "{errors:#?}");
        let named = errors
            .iter()
            .all(|error| error.starts_with("x: [isolation] "));
        assert!(named, "{errors:#?}");
    }
}
