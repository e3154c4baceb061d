//! A Pod's two containers, as an unprivileged user that has no home.

mod ends;
mod init;
mod prepare;
mod tasks;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use berth_model::instance::InstanceSpec;
use berth_model::node::RuntimeKind;
use rustix::process::{Pid, Signal, kill_process};

use crate::coordinator::Coordinator;
use crate::node::{Package, beside, port_range, shim};
use crate::wait::until;

pub(crate) const ID: &str = "web.1.0.1";

/// Not in any /etc/passwd.
const USER: u32 = 54_321;

/// A Pod's volumes and environment.
pub(crate) struct Pod {
    dir: tempfile::TempDir,
    env: BTreeMap<String, String>,
}

impl Pod {
    /// With the token and the instance that a coordinator has for it.
    pub(crate) fn new(coordinator: &Coordinator, mode: &str) -> Self {
        let package = Package::quick(coordinator);
        Self::of(coordinator, package.spec(ID, mode))
    }

    /// With the token and an instance or a task.
    pub(crate) fn of(coordinator: &Coordinator, spec: InstanceSpec) -> Self {
        let spec = InstanceSpec {
            runtime: RuntimeKind::Kubernetes,
            ..spec
        };
        coordinator.with(|state| state.pod_instance = Some(spec));
        Self::bare(coordinator)
    }

    /// With the token only.
    pub(crate) fn bare(coordinator: &Coordinator) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let open = |path: &Path| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
        };
        open(dir.path());
        for volume in ["bin", "data", "image"] {
            let path = dir.path().join(volume);
            std::fs::create_dir(&path).unwrap();
            open(&path);
        }
        let image = dir.path().join("image");
        std::fs::copy(env!("CARGO_BIN_EXE_berth-agent"), image.join("berth-agent")).unwrap();
        std::fs::copy(shim(), image.join("berth-shim")).unwrap();
        let driver = beside("berth-driver");
        std::fs::copy(driver, image.join("berth-driver")).unwrap();
        let log = dir.path().join("termination-log");
        std::fs::write(&log, "").unwrap();
        std::fs::set_permissions(&log, std::fs::Permissions::from_mode(0o666)).unwrap();
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let env = [
            ("BERTH_ENDPOINT", coordinator.endpoint()),
            ("BERTH_POD_TOKEN", coordinator.token()),
            ("POD_UID", "pod-uid".into()),
            ("POD_NAME", "berth-web-1-0-1-x7k2p".into()),
            ("POD_IP", "127.0.0.1".into()),
            ("BERTH_JOB_UID", "job-uid".into()),
            ("BERTH_POD_BIN", text(dir.path().join("bin"))),
            ("BERTH_POD_DATA", text(dir.path().join("data"))),
            ("BERTH_POD_PORTS", port_range()),
            ("BERTH_POD_TERMINATION_LOG", text(log)),
            (
                "BERTH_LOG",
                "debug,h2=info,hyper=info,tower=info,rustls=info".into(),
            ),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value));
        Self {
            dir,
            env: env.into(),
        }
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.env.insert(name.to_owned(), value.to_owned());
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub(crate) fn termination_log(&self) -> String {
        std::fs::read_to_string(self.path("termination-log")).unwrap()
    }

    /// As Kubernetes would start it: nothing in the environment but what it is told.
    pub(crate) fn prepare_command(&self) -> Command {
        let mut command = Command::new(self.path("image/berth-agent"));
        command.args(["pod", "prepare"]).envs(&self.env);
        confined(command)
    }

    pub(crate) fn run_command(&self) -> Command {
        let mut command = Command::new(self.path("bin/berth-agent"));
        command.args(["pod", "run"]).envs(&self.env);
        command.env_remove("BERTH_POD_TOKEN");
        confined(command)
    }

    pub(crate) fn prepare(&self) -> Output {
        self.prepare_command().output().unwrap()
    }

    /// Prepared and running; the token works.
    pub(crate) fn running(&self) -> Main {
        let output = self.prepare();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{told}");
        self.start()
    }

    pub(crate) fn start(&self) -> Main {
        let file = |name: &str| std::fs::File::create(self.path(name)).unwrap();
        let mut command = self.run_command();
        command.stdout(file("stdout")).stderr(file("stderr"));
        Main {
            child: command.spawn().unwrap(),
            out: self.path("stdout"),
            err: self.path("stderr"),
        }
    }
}

/// With the rights of nobody in particular, where the tests have any to give up.
fn confined(mut command: Command) -> Command {
    let env: Vec<_> = command
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
        .collect();
    command.env_clear().envs(env);
    command.stdin(Stdio::null()).current_dir("/");
    if rustix::process::geteuid().is_root() {
        command.uid(USER).gid(USER);
    }
    command
}

/// A main container's process.
pub(crate) struct Main {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Drop for Main {
    fn drop(&mut self) {
        // Its module with it: an ordered end does that; a test that failed waits no longer than this.
        self.terminate();
        let begin = std::time::Instant::now();
        while begin.elapsed().as_secs() < 5 {
            if self.child.try_wait().unwrap().is_some() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Main {
    pub(crate) fn terminate(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub(crate) async fn exit_code(&mut self) -> i32 {
        let err = self.err.clone();
        let log = move || std::fs::read_to_string(&err).unwrap_or_default();
        until("the Pod's end", || match self.child.try_wait().unwrap() {
            Some(status) => Ok(status.code().unwrap_or(-1)),
            None => Err(log()),
        })
        .await
    }

    pub(crate) fn stdout(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.err).unwrap()
    }
}
