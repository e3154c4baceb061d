//! The process runtime: plain processes on the host, each start under a `berth-shim` of its own.
//!
//! The shim is the agent's child only until the agent ends; after a restart the start is found again by
//! the state in its folder. Nothing here relies on being the parent, except that a child must be waited
//! for once it has ended.

pub(in crate::runtime) mod adopt;
pub(in crate::runtime) mod ended;
mod launch;
mod launcher;
pub(in crate::runtime) mod leftovers;
pub(in crate::runtime) mod sockets;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use berth_model::node::{Isolation, RuntimeKind};
use berth_shim::identity::{self, Signal};
use berth_shim::state::{Phase, State, Status};

use super::{Adopted, Ended, Handle, Launch, PortOwner, ProcessStats, Runtime, RuntimeError};
use crate::config::IsolationConfig;
use launcher::{Fork, Launcher};

#[cfg_attr(not(feature = "docker"), allow(unused_imports))]
pub(in crate::runtime) use launch::{call_off, prepare};

/// How long a shim may take to end everything after a kill before it is killed itself.
const KILL_PATIENCE: Duration = Duration::from_secs(3);

/// Clock ticks of `/proc` in a second: the kernel's USER_HZ, the same on every platform Berth runs on.
const TICKS_PER_SECOND: u64 = 100;

/// Shims that this agent launched, until they were waited for.
type Children = Arc<Mutex<Vec<Child>>>;

/// Starts instances as processes on this machine.
#[derive(Debug)]
pub struct ProcessRuntime {
    shim: PathBuf,
    launcher: Box<dyn Launcher>,
    children: Children,
}

impl ProcessRuntime {
    /// A runtime that uses the shim binary at `shim` and isolates nothing: whatever it runs in does that.
    pub fn new(shim: PathBuf) -> Self {
        Self {
            shim,
            launcher: Box::new(Fork::bare()),
            children: Children::default(),
        }
    }

    /// A runtime that keeps instances apart, for an agent with its data in `data`. Errors: the configuration asks for what this machine does not have.
    pub fn isolated(
        shim: PathBuf,
        config: &IsolationConfig,
        data: &Path,
    ) -> Result<Self, RuntimeError> {
        let ground = launcher::Ground::new(config, data);
        Ok(Self {
            shim,
            launcher: launcher::choose(config.launcher, ground)?,
            children: Children::default(),
        })
    }
}

/// Waits for those shims that have ended, so that none stays a zombie.
fn reap(children: &Children) {
    // A panic elsewhere leaves the list as good as it was.
    let mut children = children.lock().unwrap_or_else(PoisonError::into_inner);
    children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
}

/// An error of the system, with what was tried.
pub(in crate::runtime) fn io_error(
    what: impl Into<String>,
) -> impl FnOnce(std::io::Error) -> RuntimeError {
    move |source| RuntimeError::Io {
        what: what.into(),
        source,
    }
}

/// Whether the shim of a handle still runs.
pub(in crate::runtime) fn is_running(handle: &Handle) -> std::io::Result<bool> {
    identity::is_alive(handle.supervisor, &handle.boot_id)
}

/// Signals the shim of a handle. False if it is gone.
fn signal(handle: &Handle, signal: Signal) -> Result<bool, RuntimeError> {
    let failed = || io_error(format!("signal the shim of {}", handle.instance));
    // Pids and start times say nothing across boots.
    if !is_running(handle).map_err(failed())? {
        return Ok(false);
    }
    identity::send_signal(handle.supervisor, signal).map_err(failed())
}

impl Runtime for ProcessRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Process
    }

    fn isolation(&self, host: IpAddr) -> Option<Isolation> {
        Some(self.launcher.isolation(host))
    }

    fn start(&self, launch: &Launch) -> Result<Handle, RuntimeError> {
        reap(&self.children);
        let (child, handle) = launch::launch(self.launcher.as_ref(), &self.shim, launch)?;
        self.children
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(child);
        Ok(handle)
    }

    fn adopt(&self, dir: &Path) -> Result<Adopted, RuntimeError> {
        adopt::adopt(&adopt::Plain, dir)
    }

    fn stop(&self, handle: &Handle) -> Result<(), RuntimeError> {
        signal(handle, Signal::TERM).map(|_| ())
    }

    fn kill(&self, handle: &Handle) -> Result<(), RuntimeError> {
        let failed = || io_error(format!("kill {}", handle.instance));
        let asked = signal(handle, Signal::USR1)?;
        let patience = Instant::now() + KILL_PATIENCE;
        while asked && is_running(handle).map_err(failed())? {
            if Instant::now() >= patience {
                // The shim hangs or is stopped: do its work, then end it.
                leftovers::kill_tree(handle.supervisor).map_err(failed())?;
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        reap(&self.children);
        // First what knows all of it at once: processes that multiply could outrun who looks for them one by one.
        let cleared = launcher::clear(&handle.dir);
        leftovers::kill_marked(&handle.instance, handle.start, &handle.dir).map_err(failed())?;
        cleared
    }

    fn ended(&self, handle: &Handle) -> Ended {
        Box::pin(ended::ended(handle.clone(), Arc::clone(&self.children)))
    }

    fn listeners(&self, handle: &Handle, at: SocketAddr) -> Result<PortOwner, RuntimeError> {
        let tree = tree(handle)?;
        sockets::owner(at, &tree).map_err(io_error("read the listening sockets"))
    }

    fn ports(&self, handle: &Handle) -> Result<Vec<u16>, RuntimeError> {
        let tree = tree(handle)?;
        sockets::ports(&tree).map_err(io_error("read the listening sockets"))
    }

    fn stats(&self, handle: &Handle) -> ProcessStats {
        stats(handle).unwrap_or_default()
    }
}

/// Pids of the instance's processes, without the shim; empty if it has ended.
pub(in crate::runtime) fn tree(handle: &Handle) -> Result<Vec<u32>, RuntimeError> {
    let failed = || io_error(format!("list the processes of {}", handle.instance));
    if !is_running(handle).map_err(failed())? {
        return Ok(Vec::new());
    }
    let tree = identity::descendants_quick(handle.supervisor.pid).map_err(failed())?;
    Ok(tree.iter().map(|process| process.pid).collect())
}

pub(in crate::runtime) fn stats(handle: &Handle) -> Option<ProcessStats> {
    if !is_running(handle).ok()? {
        return None;
    }
    let shim = identity::stat(handle.supervisor.pid).ok()??;
    let tree = identity::descendants_quick(shim.pid).ok()?;
    let state = State::load(&handle.dir).ok();
    let main_pid = state
        .filter(|state| state.phase != Phase::Ended)
        .and_then(|state| {
            let main = state.processes.into_iter().next()?;
            main.pid.filter(|_| main.status == Status::Running)
        });
    let page = rustix::param::page_size() as u64;
    let everything = || tree.iter().chain([&shim]);
    Some(ProcessStats {
        rss_bytes: everything().map(|process| process.rss_pages * page).sum(),
        // What the processes waited for is in their own time, and orphans in the shim's.
        cpu_ms: everything().map(|process| process.cpu_ticks).sum::<u64>() * 1000
            / TICKS_PER_SECOND,
        processes: u32::try_from(tree.len()).unwrap_or(u32::MAX),
        main_pid,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::runtime::conformance;

    conformance::suite!(|| {
        let runtime = ProcessRuntime::new(conformance::shim());
        Some(Arc::new(runtime) as Arc<dyn Runtime>)
    });

    #[test]
    fn a_missing_shim_is_told_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let launch = conformance::shell(&dir.path().join("start"), "exit 0");
        let runtime = ProcessRuntime::new("/no/such/shim".into());
        assert!(matches!(
            runtime.start(&launch),
            Err(RuntimeError::Io { .. })
        ));
        assert_eq!(runtime.adopt(&launch.dir).unwrap(), Adopted::Nothing);
    }

    #[test]
    fn a_shim_that_does_not_report_is_told_with_what_it_said() {
        let dir = tempfile::tempdir().unwrap();
        let launch = conformance::shell(&dir.path().join("start"), "exit 0");
        // A file that stands where the shim wants its state.
        std::fs::create_dir_all(launch.dir.join("lock")).unwrap();
        let error = ProcessRuntime::new(conformance::shim())
            .start(&launch)
            .unwrap_err();
        assert!(
            matches!(&error, RuntimeError::Supervisor { why, .. } if why.contains("directory")),
            "{error:?}"
        );
    }

    #[test]
    fn no_shim_stays_a_zombie() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = ProcessRuntime::new(conformance::shim());
        let handle = runtime
            .start(&conformance::shell(&dir.path().join("start"), "exit 0"))
            .unwrap();
        while is_running(&handle).unwrap() {
            std::thread::yield_now();
        }
        runtime.kill(&handle).unwrap();
        assert!(runtime.children.lock().unwrap().is_empty());
    }
}
