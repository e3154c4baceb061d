//! The shim as a child of the agent, with what of a sandbox can be had without a service manager: control groups, a user
//! of its own, Landlock.

mod cgroup;
mod files;
mod user;

use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use berth_model::node::Isolation;
use berth_shim::sandbox::{Sandbox, User};

use super::{Armed, Ground, Launcher, Record, Upcoming};
use crate::runtime::process::io_error;
use crate::runtime::process::launch::ERRORS_FILE;
use crate::runtime::{Confinement, Launch, RuntimeError};

use cgroup::{Groups, Limits};
use user::Users;

pub(super) use cgroup::clear;

/// Launches shims as children.
#[derive(Debug)]
pub(in crate::runtime::process) struct Fork {
    /// None: no sandbox, whatever a launch says.
    around: Option<Around>,
}

#[derive(Debug)]
struct Around {
    ground: Ground,
    groups: Groups,
    /// Why instances have no user of their own, if they have none.
    users: Result<Users, String>,
    landlock: bool,
}

impl Fork {
    /// Without a sandbox.
    pub(in crate::runtime::process) fn bare() -> Self {
        Self { around: None }
    }

    /// With all of a sandbox that can be had here.
    pub(in crate::runtime::process) fn confined(ground: Ground) -> Self {
        Self {
            around: Some(Around {
                groups: Groups::find(),
                users: Users::new(&ground),
                landlock: files::supported(),
                ground,
            }),
        }
    }
}

impl Around {
    fn sandbox(&self, launch: &Launch, wanted: &Confinement) -> Result<Sandbox, RuntimeError> {
        let user = match &self.users {
            Ok(users) => users.lease(launch, wanted)?,
            Err(_) => None,
        };
        let root = user.is_none() && rustix::process::geteuid().is_root();
        let files = || files::files(&self.ground, wanted, root);
        Ok(Sandbox {
            cgroups: self.groups.paths(&name(launch)),
            // Counted by user, so only a user of its own can be limited.
            tasks: user
                .filter(|_| !self.groups.limit_tasks())
                .map(|_| self.ground.tasks),
            user: user.map(|id| User::Ids { uid: id, gid: id }),
            own: wanted.writable.clone(),
            files: self.landlock.then(files),
            search: root && folders(wanted).any(|folder| user::is_others(folder)),
        })
    }

    fn limits(&self, wanted: &Confinement) -> Limits {
        Limits {
            memory: wanted.resources.memory_bytes,
            cpu_millis: wanted.resources.cpu_millis,
            tasks: self.ground.tasks,
        }
    }
}

/// The name of a start's control groups.
fn name(launch: &Launch) -> String {
    let folder = blake3::hash(launch.dir.as_os_str().as_encoded_bytes());
    let (instance, start) = (&launch.spec.instance, launch.spec.start);
    format!("{instance}-{start}-{}", &folder.to_hex()[..8])
}

impl Launcher for Fork {
    fn arm(&self, launch: &Launch) -> Result<Armed, RuntimeError> {
        let (Some(around), Some(wanted)) = (&self.around, &launch.confinement) else {
            return Ok(Armed::default());
        };
        let sandbox = around.sandbox(launch, wanted)?;
        let cgroups = sandbox.cgroups.clone();
        Ok(Armed {
            sandbox: Some(sandbox),
            record: (!cgroups.is_empty()).then_some(Record::Fork { cgroups }),
        })
    }

    fn launch(
        &self,
        shim: &Path,
        launch: &Launch,
        _: &Armed,
    ) -> Result<Box<dyn Upcoming>, RuntimeError> {
        if let (Some(around), Some(wanted)) = (&self.around, &launch.confinement) {
            let made = around.groups.make(&name(launch), &around.limits(wanted));
            made.map_err(io_error(format!(
                "make the control groups of {}",
                launch.spec.instance
            )))?;
            let user = launch
                .spec
                .sandbox
                .as_ref()
                .and_then(|sandbox| sandbox.user.as_ref());
            if let (Ok(users), Some(User::Ids { uid, .. })) = (&around.users, user) {
                users.open_way(wanted, *uid)?;
            }
        }
        Ok(Box::new(Forked(run(shim, &launch.dir)?)))
    }

    fn isolation(&self, _: IpAddr) -> Isolation {
        let Some(around) = &self.around else {
            return Isolation {
                launcher: "none".to_owned(),
                enforced: Vec::new(),
                missing: vec![
                    "everything: launcher in [isolation] of agent.toml says so".to_owned(),
                ],
            };
        };
        let mut isolation = Isolation {
            launcher: "fork".to_owned(),
            enforced: vec!["privileges".to_owned()],
            missing: Vec::new(),
        };
        let mut tell = |what: &str, why: Option<String>| match why {
            None => isolation.enforced.push(what.to_owned()),
            Some(why) => isolation.missing.push(format!("{what}: {why}")),
        };
        tell("user", around.users.as_ref().err().cloned());
        let old = "the kernel has no Landlock, so only the rights of its user keep it out";
        tell("files", (!around.landlock).then(|| old.to_owned()));
        tell("memory", around.groups.missing("memory"));
        tell("cpu", around.groups.missing("cpu"));
        let by_user = around.users.is_ok();
        tell("tasks", around.groups.missing("pids").filter(|_| !by_user));
        let only = |what: &str| Some(format!("only systemd's units {what}"));
        tell("egress", only("can be kept from the network"));
        tell("devices", only("have devices of their own"));
        tell("system calls", only("have them filtered"));
        isolation
    }
}

struct Forked(Child);

impl Upcoming for Forked {
    fn ended(&mut self) -> Result<Option<String>, RuntimeError> {
        let ended = self.0.try_wait().map_err(io_error("wait for the shim"))?;
        Ok(ended.map(|status| status.to_string()))
    }

    fn abandon(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    fn child(self: Box<Self>) -> Option<Child> {
        Some(self.0)
    }
}

fn run(shim: &Path, dir: &Path) -> Result<Child, RuntimeError> {
    let errors = File::create(dir.join(ERRORS_FILE))
        .map_err(io_error(format!("make {ERRORS_FILE} in {}", dir.display())))?;
    let mut command = Command::new(shim);
    command.args(["run", "--dir"]).arg(dir);
    command.env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    // Not in a folder that somebody may want to remove.
    command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors);
    command
        .spawn()
        .map_err(io_error(format!("run the shim {}", shim.display())))
}

/// The folders of a confinement.
fn folders(wanted: &Confinement) -> impl Iterator<Item = &PathBuf> {
    wanted.writable.iter().chain(&wanted.readable)
}
