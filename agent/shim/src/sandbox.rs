//! What a shim keeps the processes of a start from. The shim itself is not kept from it.
//!
//! Whoever launches the shim does the rest: a service manager's unit around it, or control groups that it made.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Everything that the shim does before and between fork and exec. No process gains privileges in any case.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sandbox {
    /// Who the processes run as; none: as the shim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
    /// Folders that become that user's, with all that is in them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own: Vec<PathBuf>,
    /// Control groups which the shim enters first: their folders.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cgroups: Vec<PathBuf>,
    /// Most processes and threads of the user; none: not limited here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u64>,
    /// What of the file system they may use, where the kernel has Landlock; none: what their user may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Files>,
    /// Processes that stay root keep one right, to come through folders of other users: on the way to what they are given
    /// are such folders. Otherwise they have none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub search: bool,
}

/// Who processes run as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum User {
    /// By number.
    Ids {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// The owner of the folder that a variable of the shim's environment names: a service manager that gives out
    /// users makes such a folder for the one of the unit.
    OwnerOf {
        /// The variable.
        variable: String,
    },
}

/// What of the file system processes may use. A folder of `read` or `write` that lies in a hidden one is theirs all the
/// same; of one that holds hidden ones, they may use the rest.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Files {
    /// What they may read and execute.
    pub read: Vec<PathBuf>,
    /// What they may also write.
    pub write: Vec<PathBuf>,
    /// What is kept from them.
    pub hidden: Vec<PathBuf>,
}

impl Files {
    /// The files and folders which cover a folder but what is hidden in it. What comes into being later beside a hidden
    /// folder is not covered.
    pub fn around(&self, base: &Path) -> Vec<PathBuf> {
        let within = |hidden: &PathBuf| base.starts_with(hidden);
        if self.hidden.iter().any(within) {
            return vec![base.to_owned()];
        }
        let (mut found, mut open) = (Vec::new(), vec![base.to_owned()]);
        while let Some(path) = open.pop() {
            if !self.hidden.iter().any(|hidden| hidden.starts_with(&path)) {
                found.push(path);
                continue;
            }
            if self.hidden.contains(&path) {
                continue;
            }
            // What a link leads to is covered where it is, or hidden.
            let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
            let real =
                |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|it| !it.is_symlink());
            open.extend(entries.filter(real).map(|entry| entry.path()));
        }
        found
    }
}

/// Whether this kernel has Landlock.
pub fn has_landlock() -> bool {
    use landlock::{AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr};
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let handled = ruleset.handle_access(AccessFs::Execute);
    handled.and_then(Ruleset::create).is_ok()
}

/// Whether this kernel keeps processes from signalling those beside them, and from their sockets without a path.
pub fn has_scopes() -> bool {
    use landlock::{CompatLevel, Compatible, Ruleset, RulesetAttr, Scope};
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let scoped = ruleset.scope(Scope::AbstractUnixSocket);
    scoped.and_then(Ruleset::create).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hidden_folder_is_left_out_and_all_beside_it_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for path in ["a", "data/node/work", "data/keys", "z"] {
            std::fs::create_dir_all(at(path)).unwrap();
        }
        std::os::unix::fs::symlink(at("data"), at("link")).unwrap();
        let files = Files {
            hidden: vec![at("data/node"), at("data/keys"), at("absent/x")],
            ..Files::default()
        };
        let around = |path: &str| {
            let mut found = files.around(&at(path));
            found.sort();
            found
        };
        assert_eq!(files.around(Path::new("/proc")), [Path::new("/proc")]);
        assert_eq!(around("a"), [at("a")]);
        std::fs::write(at("data/file"), "").unwrap();
        let all = files.around(dir.path());
        assert!(!all.contains(&at("link")));
        let mut all: Vec<PathBuf> = all.into_iter().collect();
        all.sort();
        assert_eq!(all, [at("a"), at("data/file"), at("z")]);
        assert_eq!(around("data/node/work"), [at("data/node/work")]);
    }
}
