//! Putting a sandbox into effect: around the shim before anything runs, and on each process before it is executed.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};

use berth_shim::sandbox::{Files, Sandbox, User};
use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, Scope, path_beneath_rules,
};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::thread::CapabilitySet;

/// The file access that is restricted; kernels that know less restrict less.
const ACCESS: ABI = ABI::V3;

/// Bits that files made by processes with a user of their own do not get: others have no business with them. Their group
/// has, so that whoever is let into a folder by its group can use a socket there.
const UMASK: u32 = 0o007;

/// A sandbox of which everything was found out that may fail for a reason that people should be told.
#[derive(Debug, Default)]
pub(crate) struct Confined {
    user: Option<(Uid, Gid)>,
    tasks: Option<u64>,
    files: Option<Files>,
    /// Root without a user of its own keeps one right.
    search: bool,
    /// There is a sandbox at all.
    any: bool,
}

/// An error of the system, with what was tried.
fn failed(what: String) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("cannot {what}: {error}"))
}

impl Confined {
    /// Enters the control groups and gives the folders away.
    pub(crate) fn enter(sandbox: Option<&Sandbox>) -> io::Result<Self> {
        let Some(sandbox) = sandbox else {
            return Ok(Self::default());
        };
        let pid = std::process::id().to_string();
        for group in &sandbox.cgroups {
            let what = format!("enter the control group {}", group.display());
            fs::write(group.join("cgroup.procs"), &pid).map_err(failed(what))?;
        }
        let user = sandbox.user.as_ref().map(resolve).transpose()?;
        // Root without a right needs to own them, too: they may be another user's of an earlier start.
        let root = || (Uid::from_raw(0), Gid::from_raw(0));
        let owner = user.or_else(|| nix::unistd::geteuid().is_root().then(root));
        if let Some(owner) = owner {
            for folder in &sandbox.own {
                let what = format!("give {} to user {}", folder.display(), owner.0);
                give(folder, owner).map_err(failed(what))?;
            }
        }
        Ok(Self {
            user,
            tasks: sandbox.tasks,
            files: sandbox.files.clone(),
            search: sandbox.search && user.is_none(),
            any: true,
        })
    }

    /// What is to be done between fork and exec of the next process.
    pub(crate) fn child(&self) -> io::Result<Child> {
        let files = self.files.as_ref().map(ruleset).transpose();
        Ok(Child {
            user: self.user,
            tasks: self.tasks,
            files: files.map_err(|error| io::Error::other(format!("Landlock: {error}")))?,
            search: self.search,
            any: self.any,
        })
    }
}

/// What one process gives up just before it is executed.
pub(crate) struct Child {
    user: Option<(Uid, Gid)>,
    tasks: Option<u64>,
    files: Option<RulesetCreated>,
    search: bool,
    any: bool,
}

impl Child {
    /// Whether there is anything to give up.
    pub(crate) fn is_confined(&self) -> bool {
        self.any
    }

    /// Gives it up, in this process and for good.
    pub(crate) fn apply(&mut self) -> io::Result<()> {
        if !self.any {
            return Ok(());
        }
        // Cores of models are large, and nobody collects them.
        setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
        level_oom_score();
        // Root, too, has none once it executes something. Whoever may not do that has nothing to give up either.
        let mut gone = CapabilitySet::all();
        gone.set(CapabilitySet::DAC_READ_SEARCH, !self.search);
        for capability in gone {
            let _ = rustix::thread::remove_capability_from_bounding_set(capability);
        }
        // What was handed down to the shim goes no further.
        let _ = rustix::thread::clear_ambient_capability_set();
        let mut mine = rustix::thread::capabilities(None)?;
        mine.inheritable = CapabilitySet::empty();
        rustix::thread::set_capabilities(None, mine)?;
        if let Some((uid, gid)) = self.user {
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(UMASK));
            setgroups(&[])?;
            setresgid(gid, gid, gid)?;
            setresuid(uid, uid, uid)?;
        }
        if let Some(tasks) = self.tasks {
            setrlimit(Resource::RLIMIT_NPROC, tasks, tasks)?;
        }
        nix::sys::prctl::set_no_new_privs()?;
        if let Some(files) = self.files.take() {
            files.restrict_self().map_err(io::Error::other)?;
        }
        Ok(())
    }
}

/// A shim may be spared when memory runs out; what it runs is not.
fn level_oom_score() {
    const FILE: &str = "/proc/self/oom_score_adj";
    let spared = fs::read_to_string(FILE).is_ok_and(|score| score.starts_with('-'));
    if spared {
        let _ = fs::write(FILE, "0");
    }
}

fn resolve(user: &User) -> io::Result<(Uid, Gid)> {
    let (uid, gid) = match user {
        User::Ids { uid, gid } => (*uid, *gid),
        User::OwnerOf { variable } => {
            let path = std::env::var_os(variable).ok_or_else(|| {
                let why = format!("no variable {variable} names the folder of the unit's user");
                io::Error::new(io::ErrorKind::NotFound, why)
            })?;
            let what = format!("find the owner of {}", Path::new(&path).display());
            let found = fs::metadata(&path).map_err(failed(what))?;
            (found.uid(), found.gid())
        }
    };
    if uid == 0 || gid == 0 {
        let why = "its processes would run as root";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok((Uid::from_raw(uid), Gid::from_raw(gid)))
}

/// Gives a folder and what is in it to a user. Links are given away themselves, never followed.
fn give(folder: &Path, user: (Uid, Gid)) -> io::Result<()> {
    let found = fs::symlink_metadata(folder)?;
    let givable = Givable {
        before: found.uid(),
        mine: rustix::process::geteuid().as_raw(),
        to: (user.0.as_raw(), user.1.as_raw()),
    };
    // A set-group-id bit says whose the group is to be: what is made in there is for that group, too.
    let shared = found.mode() & 0o2000 != 0;
    let mut open = vec![(folder.to_owned(), found)];
    while let Some((path, found)) = open.pop() {
        if found.is_dir() {
            for entry in fs::read_dir(&path)? {
                let path = entry?.path();
                let found = fs::symlink_metadata(&path)?;
                open.push((path, found));
            }
        }
        givable.give(&path, &found, shared)?;
    }
    Ok(())
}

struct Givable {
    /// Who had the folder before.
    before: u32,
    mine: u32,
    to: (u32, u32),
}

impl Givable {
    fn give(&self, path: &PathBuf, found: &Metadata, shared: bool) -> io::Result<()> {
        let group = if shared { found.gid() } else { self.to.1 };
        if (found.uid(), found.gid()) == (self.to.0, group) {
            return Ok(());
        }
        // A second name of somebody else's file must not make it this user's.
        let single = found.is_dir() || found.nlink() == 1;
        let owner = found.uid();
        if owner == self.before && owner != self.mine || owner == self.to.0 || single {
            return lchown(path, Some(self.to.0), Some(group));
        }
        Ok(())
    }
}

fn ruleset(files: &Files) -> Result<RulesetCreated, landlock::RulesetError> {
    let all = |paths: &[PathBuf]| -> Vec<PathBuf> {
        let around = paths.iter().map(|path| files.around(path));
        around.flatten().collect()
    };
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ACCESS))?
        // Signals to whoever is not below: the agent may well run as the same user.
        .scope(Scope::Signal)?
        // Sockets that have no path have no rights either.
        .scope(Scope::AbstractUnixSocket)?
        .create()?
        .add_rules(path_beneath_rules(
            all(&files.read),
            AccessFs::from_read(ACCESS),
        ))?
        .add_rules(path_beneath_rules(
            all(&files.write),
            AccessFs::from_all(ACCESS),
        ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_run_as_root_by_a_wrong_user() {
        let root = User::Ids { uid: 0, gid: 0 };
        assert!(resolve(&root).is_err());
        let variable = "BERTH_NO_SUCH_VARIABLE".to_owned();
        let error = resolve(&User::OwnerOf { variable })
            .unwrap_err()
            .to_string();
        assert!(error.contains("BERTH_NO_SUCH_VARIABLE"), "{error}");
    }

    #[test]
    fn a_second_name_of_a_file_of_this_program_is_not_given_away() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (mine, folder) = (dir.path().join("mine"), dir.path().join("work"));
        fs::write(&mine, "").unwrap();
        fs::create_dir_all(folder.join("sub")).unwrap();
        fs::write(folder.join("sub/file"), "").unwrap();
        fs::hard_link(&mine, folder.join("second")).unwrap();
        std::os::unix::fs::symlink(&mine, folder.join("link")).unwrap();
        for uid in [4711, 4712] {
            give(&folder, (Uid::from_raw(uid), Gid::from_raw(uid))).unwrap();
            let owner = |path: &str| fs::symlink_metadata(folder.join(path)).unwrap().uid();
            assert_eq!([owner("sub"), owner("sub/file"), owner("link")], [uid; 3]);
            assert_eq!(owner("second"), 0);
        }
        assert_eq!(fs::metadata(&mine).unwrap().uid(), 0);
    }
}
