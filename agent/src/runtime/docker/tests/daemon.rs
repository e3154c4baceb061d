//! A daemon that is killed, stopped, slow and started again, while its containers should be well.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::world::{World, import, skip};
use crate::runtime::conformance::{FOREVER, end, nothing_is_left, shell, until};
use crate::runtime::docker::sweep;
use crate::runtime::{Adopted, Availability, EndReason, Runtime, RuntimeError};

/// A daemon of a test's own.
struct Dockerd {
    root: tempfile::TempDir,
    process: Child,
}

impl Dockerd {
    /// None: this machine cannot have one, and that was told.
    fn start() -> Option<Self> {
        let program = Path::new("/usr/sbin/dockerd");
        if !program.exists() || !rustix::process::geteuid().is_root() {
            skip("a daemon of a test's own needs root and /usr/sbin/dockerd");
            return None;
        }
        let root = tempfile::Builder::new().prefix("bd").tempdir().unwrap();
        let process = run(root.path());
        let daemon = Self { root, process };
        until("a daemon", || import(&daemon.socket()).is_ok());
        Some(daemon)
    }

    fn socket(&self) -> PathBuf {
        self.root.path().join("s")
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    fn end(&mut self, signal: Signal) {
        self.signal(signal);
        self.process.wait().unwrap();
    }

    fn again(&mut self) {
        self.process = run(self.root.path());
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // After a test that failed, it may be gone and its containers not.
        if !std::thread::panicking() {
            assert!(self.process.try_wait().unwrap().is_none(), "it has ended");
        } else if self.process.try_wait().is_ok_and(|ended| ended.is_some()) {
            self.again();
            until("a daemon", || import(&self.socket()).is_ok());
        }
        let _ = kill(
            Pid::from_raw(i32::try_from(self.process.id()).unwrap()),
            Signal::SIGTERM,
        );
        let _ = self.process.wait();
    }
}

fn run(root: &Path) -> Child {
    let path = |name: &str| root.join(name).display().to_string();
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(root.join("log"))
        .unwrap();
    // Left by one that was killed.
    for left in ["pid", "x/containerd/containerd.pid"] {
        let _ = std::fs::remove_file(root.join(left));
    }
    Command::new("/usr/sbin/dockerd")
        .args(["--data-root", &path("d"), "--exec-root", &path("x")])
        .args(["--pidfile", &path("pid"), "-H"])
        .arg(format!("unix://{}", path("s")))
        .args(["--iptables=false", "--bridge=none"])
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

async fn is(world: &crate::runtime::docker::DockerRuntime, wanted: fn(&Availability) -> bool) {
    let mut availability = world.availability().unwrap();
    let changed = availability.wait_for(wanted);
    tokio::time::timeout(std::time::Duration::from_secs(60), changed)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn containers_outlive_a_killed_daemon_and_are_stopped_without_one() {
    let Some(mut dockerd) = Dockerd::start() else {
        return;
    };
    let world = World::at(&dockerd.socket());
    let docker = world.runtime();
    is(&docker, |now| *now == Availability::Works).await;
    let runtime: Arc<dyn Runtime> = Arc::new(docker.clone());
    let handle = runtime.start(&shell(&world.dir(), FOREVER)).unwrap();
    // Slow: it is there and says nothing.
    dockerd.signal(Signal::SIGSTOP);
    is(&docker, |now| matches!(now, Availability::Broken { .. })).await;
    assert_eq!(
        runtime.adopt(&world.dir()).unwrap(),
        Adopted::Running(handle.clone())
    );
    dockerd.signal(Signal::SIGCONT);
    is(&docker, |now| *now == Availability::Works).await;
    // Gone.
    dockerd.end(Signal::SIGKILL);
    is(&docker, |now| matches!(now, Availability::Broken { .. })).await;
    let other = shell(&world.data().join("other"), FOREVER);
    let error = runtime.start(&other).unwrap_err();
    assert!(matches!(error, RuntimeError::Daemon { .. }), "{error:?}");
    assert_eq!(
        runtime.adopt(&world.dir()).unwrap(),
        Adopted::Running(handle.clone())
    );
    assert!(runtime.stats(&handle).processes > 0);
    runtime.stop(&handle).unwrap();
    assert_eq!(end(&runtime, &handle).await.reason, EndReason::Stopped);
    nothing_is_left(&handle);
    dockerd.again();
    is(&docker, |now| *now == Availability::Works).await;
    // What could not be removed while it was away. Its own sweep may have been faster.
    let name = super::super::container::name(&handle.instance, handle.start, &handle.dir);
    sweep::sweep(&docker.daemon, &world.data(), false)
        .await
        .unwrap();
    until("its removal", || {
        docker.inspect(&name).is_err_and(|error| error.is_missing())
    });
}

#[tokio::test]
async fn a_daemon_that_takes_its_containers_along_is_told() {
    let Some(mut dockerd) = Dockerd::start() else {
        return;
    };
    let world = World::at(&dockerd.socket());
    let docker = world.runtime();
    let runtime: Arc<dyn Runtime> = Arc::new(docker.clone());
    let handle = runtime.start(&shell(&world.dir(), FOREVER)).unwrap();
    dockerd.end(Signal::SIGTERM);
    let told = end(&runtime, &handle).await;
    assert!(matches!(told.reason, EndReason::Outside { .. }), "{told:?}");
    nothing_is_left(&handle);
    assert_eq!(runtime.adopt(&world.dir()).unwrap(), Adopted::Ended(told));
    dockerd.again();
    is(&docker, |now| *now == Availability::Works).await;
    let next = shell(
        &world.data().join("instances/conformance.1.0.1/starts/2"),
        FOREVER,
    );
    let next = runtime.start(&next).unwrap();
    runtime.kill(&next).unwrap();
    assert_eq!(end(&runtime, &next).await.reason, EndReason::Stopped);
}
