//! What starts an instance's processes, behind one trait.
//!
//! A runtime is one folder under this module that passes the shared conformance suite
//! (`conformance.rs`). It works on *start folders* (`instances/ID/starts/N/`): everything it needs to
//! find its processes again is in there, so that an agent which was restarted, killed or upgraded
//! adopts what still runs instead of starting it a second time.
//!
//! The trait is object safe. Its calls are synchronous, because they are short sequences of system
//! calls; those marked **blocking** may take up to seconds and belong in `spawn_blocking`.

#[cfg(test)]
pub(crate) mod conformance;
#[cfg(feature = "docker")]
pub mod docker;
pub(crate) mod marker;
pub mod process;
mod runtimes;

use std::collections::BTreeSet;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use berth_model::digest::PackageDigest;
use berth_model::instance::{InstanceSpec, Reason};
use berth_model::node::{Isolation, RuntimeKind};
use berth_model::resources::Resources;
use berth_shim::spec::Spec;
use berth_shim::state::ProcessIdentity;
use tokio::sync::watch;

pub use runtimes::Runtimes;

/// One start of an instance, to be launched.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The start folder, absolute. It is created with its parents; it must not hold a start already.
    pub dir: PathBuf,
    /// What to run. Its `instance` and `start` must be those the folder stands for.
    pub spec: Spec,
    /// For runtimes that make containers.
    pub container: Option<Container>,
    /// What its processes are kept to, by runtimes that make none; none: whatever the agent may.
    pub confinement: Option<Confinement>,
}

/// What the processes of a start may use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Confinement {
    /// Folders that they may write, which become their user's.
    pub writable: Vec<PathBuf>,
    /// What they may read of the agent's: the package, its environment, programs.
    pub readable: Vec<PathBuf>,
    /// Limits; zero is none.
    pub resources: Resources,
    /// What they may dial beside this machine, as the manifest says it.
    pub egress: Vec<String>,
    /// Where they listen; none: on loopback.
    pub host: Option<IpAddr>,
    /// After how long they are ended where something beside the agent can see to that; none: never.
    pub deadline: Option<Duration>,
}

/// Where the package is in a container.
pub const PACKAGE: &str = "/berth/package";

/// The container of a start.
#[derive(Debug, Clone)]
pub struct Container {
    /// Its image, as [`Runtime::prepare`] told.
    pub image: String,
    /// The unpacked package, which the container sees at [`PACKAGE`].
    pub package: PathBuf,
    /// Folders that it may write, at the same paths as here. They become its user's.
    pub writable: Vec<PathBuf>,
    /// What else it may read, at the same paths as here.
    pub readable: Vec<PathBuf>,
    /// What it may use.
    pub resources: Resources,
    /// UUIDs of the GPUs that it may use; none where only their number is known.
    pub gpus: Vec<String>,
}

/// A start that runs, or ran when the handle was made. Cheap to clone; holds no resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handle {
    /// What started it.
    pub runtime: RuntimeKind,
    /// The start folder.
    pub dir: PathBuf,
    /// Text form of the instance.
    pub instance: String,
    /// Number of the start, from 1.
    pub start: u32,
    /// The boot in which it runs (part of the identity of its log stream).
    pub boot_id: String,
    /// The shim. With the boot id it can never be mistaken for a process that reuses its pid.
    pub supervisor: ProcessIdentity,
}

/// What [`Runtime::adopt`] found in a start folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adopted {
    /// It still runs, untouched.
    Running(Handle),
    /// It ended in order and left its final state.
    Ended(EndState),
    /// It ended without leaving a final state: the supervisor was killed, or the node restarted.
    /// What was left of it has been killed. The reason is `SupervisorLost` or `NodeRestarted`.
    Lost(EndState),
    /// Nothing was ever started here, and now nothing will be: a launch that was under way when the
    /// agent died has been called off.
    Nothing,
}

/// How one named process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessEnd {
    /// Name of the process in the spec.
    pub name: String,
    /// How it ended.
    pub end: End,
}

/// An ending, as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It called exit.
    Exited {
        /// Exit code.
        code: i32,
    },
    /// A signal ended it.
    Signaled {
        /// Signal number.
        signal: i32,
        /// A core was dumped.
        core: bool,
    },
    /// It could not be executed.
    FailedToStart {
        /// The system's error text.
        error: String,
    },
    /// It was never tried, because another process failed to start before.
    NotStarted,
    /// Not known, because the supervisor was lost.
    Unknown,
}

/// Why a start ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndReason {
    /// It was told to stop, and did.
    Stopped,
    /// It was told to stop and had to be killed when its grace was over.
    KilledAfterGrace,
    /// A process ended by itself; the others were ended because of it.
    Process(ProcessEnd),
    /// A process was ended because memory ran out; the others were ended because of it.
    OutOfMemory {
        /// Which.
        process: String,
        /// The limit in bytes, if known.
        limit: Option<u64>,
        /// The most that was used in bytes, if known.
        peak: Option<u64>,
    },
    /// Somebody else ended it, past this agent.
    Outside {
        /// Who and how, as far as it is known.
        error: String,
    },
    /// The shim was killed, so that no exit status is known.
    SupervisorLost,
    /// The node booted anew meanwhile.
    NodeRestarted,
}

impl From<&EndReason> for Reason {
    fn from(reason: &EndReason) -> Self {
        match reason {
            EndReason::Stopped => Self::StopRequested,
            EndReason::KilledAfterGrace => Self::KilledAfterGrace,
            EndReason::SupervisorLost => Self::SupervisorLost,
            EndReason::NodeRestarted => Self::Rebooted,
            EndReason::OutOfMemory {
                process,
                limit,
                peak,
            } => Self::OutOfMemory {
                process: process.clone(),
                limit: *limit,
                peak: *peak,
            },
            EndReason::Outside { error } => Self::Node {
                error: error.clone(),
            },
            EndReason::Process(ProcessEnd { name, end }) => {
                let process = name.clone();
                match end {
                    End::Exited { code } => Self::Exited {
                        process,
                        code: *code,
                    },
                    End::Signaled { signal, .. } => Self::Signaled {
                        process,
                        signal: *signal,
                    },
                    End::FailedToStart { error } => Self::FailedToStart {
                        process,
                        error: error.clone(),
                    },
                    End::NotStarted | End::Unknown => Self::SupervisorLost,
                }
            }
        }
    }
}

/// The end of a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndState {
    /// Why.
    pub reason: EndReason,
    /// A stop was requested before it ended.
    pub stop_requested: bool,
    /// Every named process, in the spec's order.
    pub processes: Vec<ProcessEnd>,
    /// When it was started, Unix milliseconds; 0 if not known.
    pub started_at_ms: u64,
    /// When it ended, Unix milliseconds; none if not known.
    pub ended_at_ms: Option<u64>,
    /// The end of what it wrote to stderr (up to 2 KiB, lossily UTF-8).
    pub stderr_tail: Option<String>,
}

/// Who listens on a port of the loopback address that instances are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortOwner {
    /// The instance.
    Instance,
    /// Somebody else, or somebody else too (`SO_REUSEPORT`).
    Other {
        /// Its pid, where it may be seen.
        pid: Option<u32>,
    },
    /// No socket listens where `127.0.0.1:port` leads to.
    Nobody,
}

/// What a start uses, all its processes and the shim together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessStats {
    /// Resident memory in bytes (shared pages count in each process).
    pub rss_bytes: u64,
    /// User and system time since the start in milliseconds, including that of processes gone.
    pub cpu_ms: u64,
    /// How many processes there are, without the shim.
    pub processes: u32,
    /// Pid of the first named process, while it runs.
    pub main_pid: Option<u32>,
}

/// Why a runtime could not do as told.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The launch makes no sense (no process, a folder already in use, …); trying again is no use.
    #[error("cannot launch in {dir:?}: {why}")]
    Launch {
        /// The start folder.
        dir: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The shim did not report in time, or ended without a state; whatever it started was killed.
    #[error("the supervisor of {dir:?} did not come up: {why}")]
    Supervisor {
        /// The start folder.
        dir: PathBuf,
        /// What it said, or that it said nothing.
        why: String,
    },
    /// A state that this version cannot read; its processes were left alone.
    #[error("cannot read the state in {dir:?}")]
    State {
        /// The start folder.
        dir: PathBuf,
        /// What is wrong with it.
        source: berth_shim::state::StateError,
    },
    /// The daemon on which the runtime depends did not do as told.
    #[error("cannot {what}")]
    Daemon {
        /// What was tried.
        what: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The image is not here any more; preparing the instance anew helps.
    #[error("the image {image} is gone from this node; it is prepared again")]
    ImageGone {
        /// The image.
        image: String,
    },
    /// This agent does not have that runtime; trying again is no use.
    #[error("this node has no {kind} runtime: {why}")]
    Absent {
        /// Which.
        kind: RuntimeKind,
        /// Why not, and what to do.
        why: String,
    },
    /// What an instance may dial cannot be found out; it may be different in a moment.
    #[error("cannot tell what it may dial: {why}")]
    Egress {
        /// Which entry, and why.
        why: String,
    },
    /// The start folder does not say what started it in a way that this version understands.
    #[error("cannot tell what started {dir:?}: {why}")]
    Marker {
        /// The start folder.
        dir: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The system refused.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's error.
        source: std::io::Error,
    },
}

/// Whether a runtime works just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Availability {
    /// It can start instances.
    Works,
    /// It is not on this machine, and nobody has said that it should be.
    NotHere,
    /// It should work and does not.
    Broken {
        /// What is wrong and what to do.
        message: String,
    },
}

/// Why something that an instance needs could not be prepared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrepareError {
    /// What to report.
    pub reason: Reason,
    /// It may well be different in a moment, without anybody doing anything.
    pub passing: bool,
    /// The end of what the preparation said.
    pub last_lines: Vec<String>,
    /// When it may be tried again.
    pub retry: Duration,
}

/// The future of [`Runtime::prepare`].
pub type Preparing = Pin<Box<dyn Future<Output = Result<String, PrepareError>> + Send + 'static>>;

/// The future of [`Runtime::ended`].
pub type Ended = Pin<Box<dyn Future<Output = EndState> + Send + 'static>>;

/// Starts, finds again, watches and ends instances on one node.
pub trait Runtime: Send + Sync + 'static {
    /// Which runtime this is.
    fn kind(&self) -> RuntimeKind;

    /// Whether it works, for those that depend on something which comes and goes; none: always.
    fn availability(&self) -> Option<watch::Receiver<Availability>> {
        None
    }

    /// How it keeps instances apart that listen on `host`, if that depends on the machine.
    fn isolation(&self, _host: IpAddr) -> Option<Isolation> {
        None
    }

    /// Prepares what an instance needs besides its package, which lies in `package`, and tells what
    /// [`Container::image`] is to be; none: it needs nothing. Cancel-safe; to be asked before each start.
    fn prepare(&self, _wanted: &InstanceSpec, _package: &Path) -> Option<Preparing> {
        None
    }

    /// What was prepared for packages that are not `used` may go. Returns at once.
    fn collect(&self, _used: &BTreeSet<PackageDigest>) {}

    /// Removes what is left of starts that have ended, which is otherwise done in the background. **Blocking**, bounded
    /// by some seconds.
    fn tidy(&self) {}

    /// Persists the spec and launches. Returns once the supervisor has left its first state, which
    /// may already be the end (a command that cannot be executed): [`Runtime::ended`] tells.
    /// **Blocking**, bounded by some seconds. After an error nothing of it is left running.
    fn start(&self, launch: &Launch) -> Result<Handle, RuntimeError>;

    /// Finds out what became of the start in a folder, after an agent's restart. Kills what a lost
    /// supervisor left behind. **Blocking.**
    fn adopt(&self, dir: &Path) -> Result<Adopted, RuntimeError>;

    /// Begins the ordered stop: SIGTERM to all of its processes, the spec's `stop_grace`, SIGKILL.
    /// Returns at once; [`Runtime::ended`] tells when it is done. Idempotent; a start that has ended
    /// is no error.
    fn stop(&self, handle: &Handle) -> Result<(), RuntimeError>;

    /// Kills all of its processes now. Idempotent. **Blocking**: returns when none is left, bounded by
    /// some seconds.
    fn kill(&self, handle: &Handle) -> Result<(), RuntimeError>;

    /// Waits for the end, however it comes. Cancel-safe (drop the future and ask again); at once if
    /// it has ended already. Must be called within a tokio runtime. Nothing of the instance is
    /// running any more when it resolves.
    fn ended(&self, handle: &Handle) -> Ended;

    /// Who gets connections to `at`. **Blocking** (reads `/proc`, milliseconds).
    fn listeners(&self, handle: &Handle, at: SocketAddr) -> Result<PortOwner, RuntimeError>;

    /// The ports on which any of its processes listens, sorted, on whatever address: what to tell
    /// people when [`Runtime::listeners`] finds nobody. **Blocking** (reads `/proc`).
    fn ports(&self, handle: &Handle) -> Result<Vec<u16>, RuntimeError>;

    /// What it uses now; zero after its end. **Blocking** (reads `/proc`, milliseconds).
    fn stats(&self, handle: &Handle) -> ProcessStats;
}
