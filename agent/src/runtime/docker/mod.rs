//! The Docker runtime: each start is a container whose first process is a static `berth-shim`.
//!
//! The start folder is mounted into the container, so that its state and log are the very files that the process
//! runtime has; and container and machine share one kernel. So nothing here needs the daemon once a container
//! runs: it is adopted, watched, measured and stopped by its shim's process on this machine. The daemon is asked to
//! make and remove containers, and for what the kernel does not tell (that memory ran out for the shim itself).

mod container;
mod daemon;
mod error;
mod host;
mod image;
mod launch;
mod sweep;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_model::digest::PackageDigest;
use berth_model::instance::InstanceSpec;
use berth_model::node::RuntimeKind;
use berth_shim::identity::{self, Signal};
use berth_shim::state::State;
use bollard::query_parameters::KillContainerOptions;
use tokio::sync::watch;

use self::container::Common;
use self::daemon::{Daemon, PATIENCE};
use self::error::failed;
use self::image::Images;
use super::process::adopt::{self, Supervisors};
use super::process::{ended, io_error, is_running, leftovers, sockets, stats, tree};
use super::{
    Adopted, Availability, EndReason, Ended, Handle, Launch, PortOwner, Preparing, ProcessStats,
    Runtime, RuntimeError,
};
use crate::config::DockerConfig;

/// How long a shim may take to end everything after a kill before it is killed itself.
const KILL_PATIENCE: Duration = Duration::from_secs(3);

/// File in a start folder that says: this agent, or one before it, has asked for the end.
const ASKED_FILE: &str = "stop-asked";

/// Whom containers of a root's agent run as: nobody that owns anything.
const NOBODY: (u32, u32) = (65_532, 65_532);

/// Starts instances as containers on this machine.
#[derive(Debug, Clone)]
pub struct DockerRuntime {
    daemon: Daemon,
    common: Common,
    images: Images,
}

impl DockerRuntime {
    /// A runtime that uses the shim binary at `shim`, for the agent with the data folder `data`. `labels` are put
    /// on all of its containers. Errors: no thread can be had.
    pub fn new(
        config: &DockerConfig,
        shim: &Path,
        data: &Path,
        labels: Vec<(String, String)>,
    ) -> std::io::Result<Self> {
        let own = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        let user = config.user.unwrap_or(if own.0 == 0 { NOBODY } else { own });
        let daemon = Daemon::new(&config.socket, config.wanted)?;
        let runtime = Self {
            images: Images::new(daemon.clone(), config.clone(), data),
            daemon,
            common: Common {
                shim: shim.to_owned(),
                data: data.to_owned(),
                user,
                pids: config.pids,
                labels,
            },
        };
        sweep::begin(&runtime.daemon, data);
        Ok(runtime)
    }

    /// Removes a container in the background; what cannot be removed now is swept up later.
    fn remove_later(&self, name: &str) {
        let (daemon, name) = (self.daemon.clone(), name.to_owned());
        self.daemon.spawn(async move {
            let what = name.clone();
            let removed = daemon.call(PATIENCE, |docker| async move {
                docker
                    .remove_container(&name, Some(launch::removal()))
                    .await
            });
            match removed.await {
                Err(error) if !error.is_missing() && !error.is_conflict() => {
                    tracing::debug!(
                        container = what,
                        error = crate::chain(&error),
                        "cannot remove"
                    );
                }
                _ => {}
            }
        });
    }

    /// Signals the shim. False if it is gone.
    fn signal(&self, handle: &Handle, signal: Signal, word: &str) -> Result<bool, RuntimeError> {
        let failed_here = || io_error(format!("signal the shim of {}", handle.instance));
        if !is_running(handle).map_err(failed_here())? {
            return Ok(false);
        }
        match identity::send_signal(handle.supervisor, signal) {
            // It runs as somebody whom this agent may not signal; the daemon may.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                let name = container::name(&handle.instance, handle.start, &handle.dir);
                let what = format!("signal the container {name}");
                let options = KillContainerOptions {
                    signal: word.to_owned(),
                };
                let asked = self.daemon.wait_for(PATIENCE, move |docker| async move {
                    docker.kill_container(&name, Some(options)).await
                });
                match asked {
                    Err(error) if error.is_missing() || error.is_conflict() => Ok(false),
                    other => other.map(|()| true).map_err(failed(what)),
                }
            }
            sent => sent.map_err(failed_here()),
        }
    }

    /// Writes down that the end is wanted, so that an end that nobody here wanted can be told from it.
    fn asked(&self, handle: &Handle) {
        if let Err(error) = crate::files::touch(&handle.dir.join(ASKED_FILE)) {
            tracing::warn!(
                error = crate::chain(&error),
                "cannot note that a stop was asked for"
            );
        }
    }
}

impl Supervisors for DockerRuntime {
    fn find(&self, dir: &Path, state: &State) -> std::io::Result<Option<Handle>> {
        let found = host::find(dir, state)?;
        Ok(found.map(|supervisor| launch::handle(dir, state, supervisor)))
    }

    fn lost(&self, dir: &Path, state: &State) -> EndReason {
        let name = container::name(&state.instance, state.start, dir);
        let Some(seen) = self.inspect(&name).ok() else {
            return EndReason::SupervisorLost;
        };
        if seen.state.and_then(|state| state.oom_killed) != Some(true) {
            return EndReason::SupervisorLost;
        }
        let limit = seen.host_config.and_then(|config| config.memory);
        EndReason::OutOfMemory {
            process: state
                .processes
                .first()
                .map(|process| process.name.clone())
                .unwrap_or_default(),
            limit: limit
                .and_then(|bytes| u64::try_from(bytes).ok())
                .filter(|bytes| *bytes > 0),
            peak: None,
        }
    }

    fn ended(&self, dir: &Path, reason: EndReason) -> EndReason {
        let stopped = matches!(reason, EndReason::Stopped | EndReason::KilledAfterGrace);
        if stopped && !dir.join(ASKED_FILE).exists() {
            return EndReason::Outside {
                error: "its container was stopped by somebody else: the Docker daemon was stopped (without \
                        live-restore it takes its containers with it), or docker stop was called"
                    .to_owned(),
            };
        }
        reason
    }
}

impl Runtime for DockerRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Docker
    }

    fn availability(&self) -> Option<watch::Receiver<Availability>> {
        Some(self.daemon.availability())
    }

    fn prepare(&self, wanted: &InstanceSpec, package: &Path) -> Option<Preparing> {
        Some(self.images.prepare(wanted, package))
    }

    fn collect(&self, used: &BTreeSet<PackageDigest>) {
        self.images.collect(used);
    }

    fn tidy(&self) {
        let (tell, told) = std::sync::mpsc::channel();
        let (daemon, data) = (self.daemon.clone(), self.common.data.clone());
        self.daemon.spawn(async move {
            if let Err(error) = sweep::sweep(&daemon, &data, true).await {
                tracing::warn!(
                    error = crate::chain(&error),
                    "cannot remove containers that have ended"
                );
            }
            // Nobody waits any more if it took too long.
            let _ = tell.send(());
        });
        let _ = told.recv_timeout(PATIENCE);
    }

    fn start(&self, launch: &Launch) -> Result<Handle, RuntimeError> {
        self.launch(launch)
    }

    fn adopt(&self, dir: &Path) -> Result<Adopted, RuntimeError> {
        // As the container's name and mounts were made of it.
        let dir: PathBuf = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        adopt::adopt(self, &dir)
    }

    fn stop(&self, handle: &Handle) -> Result<(), RuntimeError> {
        if is_running(handle).unwrap_or(true) {
            self.asked(handle);
        }
        self.signal(handle, Signal::TERM, "SIGTERM").map(|_| ())
    }

    fn kill(&self, handle: &Handle) -> Result<(), RuntimeError> {
        let failed_here = || io_error(format!("kill {}", handle.instance));
        if is_running(handle).map_err(failed_here())? {
            self.asked(handle);
        }
        let asked = self.signal(handle, Signal::USR1, "SIGUSR1")?;
        let begin = Instant::now();
        let mut killed = false;
        while asked && is_running(handle).map_err(failed_here())? {
            // It hangs or is stopped. With the first process of its namespace goes all the rest.
            if !killed && begin.elapsed() >= KILL_PATIENCE {
                self.signal(handle, Signal::KILL, "SIGKILL")?;
                killed = true;
            }
            if begin.elapsed() >= 3 * KILL_PATIENCE {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        leftovers::kill_marked(&handle.instance, handle.start, &handle.dir).map_err(failed_here())
    }

    fn ended(&self, handle: &Handle) -> Ended {
        let (runtime, handle) = (self.clone(), handle.clone());
        Box::pin(async move {
            ended::gone(&handle).await;
            let again = (runtime.clone(), handle.clone());
            let look = move || {
                let end = ended::found(adopt::lost(&runtime, &handle.dir), &handle);
                runtime.remove_later(&container::name(
                    &handle.instance,
                    handle.start,
                    &handle.dir,
                ));
                end
            };
            match tokio::task::spawn_blocking(look).await {
                Ok(end) => end,
                // The tokio runtime is shutting down; nobody is served by waiting.
                Err(_) => ended::found(adopt::lost(&again.0, &again.1.dir), &again.1),
            }
        })
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
        let mut found = stats(handle).unwrap_or_default();
        // What the state says is true in the container only.
        let inner = found.main_pid.take();
        let tree = inner.and_then(|_| tree(handle).ok()).unwrap_or_default();
        found.main_pid = tree.into_iter().find(|pid| host::inner_pid(*pid) == inner);
        found
    }
}

#[cfg(test)]
mod tests;
