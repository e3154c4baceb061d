//! `state.json`: what a shim says about itself and its processes, for agents of any later version.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::document::{self, DocumentError};

/// The version of the format that this build writes, and the newest that it reads.
pub const STATE_VERSION: u32 = 1;

/// File name in a start folder.
pub const STATE_FILE: &str = "state.json";

/// Folder of the log segments in a start folder.
pub const LOGS_DIR: &str = "logs";

/// File in a start folder that a shim keeps locked (`flock`) as long as it lives.
pub const LOCK_FILE: &str = "lock";

/// Why a state cannot be used.
pub type StateError = DocumentError;

/// A process that a reused pid is never mistaken for, within one boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot, field 22 of `/proc/PID/stat`.
    pub start_ticks: u64,
}

/// How far a start is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The shim runs; its processes are being started.
    Starting,
    /// All processes were started.
    Running,
    /// What is left is being ended, for a stop or because a process ended.
    Stopping,
    /// Nothing is left; the shim writes nothing after this.
    Ended,
}

/// What became of one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Status {
    /// Not tried yet, or never, because another failed to start.
    NotStarted,
    /// It could not be executed.
    FailedToStart {
        /// The system's error text.
        error: String,
    },
    /// It runs.
    Running,
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
}

impl Status {
    /// Whether the process has come and gone, or never came.
    pub fn is_over(&self) -> bool {
        !matches!(self, Self::Running)
    }
}

/// One named process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessState {
    /// Its name in the spec.
    pub name: String,
    /// Its pid, once started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Its start time in clock ticks, once started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ticks: Option<u64>,
    /// What became of it.
    pub status: Status,
    /// It was ended because memory ran out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub oom_killed: bool,
}

/// Memory of the control group in which a start ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MemoryState {
    /// The lowest limit that held, in bytes; none if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// The most that was used, in bytes; none where the kernel does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak: Option<u64>,
}

/// One start, as its shim sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Version of the format, [`STATE_VERSION`].
    pub version: u32,
    /// Text form of the instance.
    pub instance: String,
    /// Number of the start.
    pub start: u32,
    /// The boot in which all this is true.
    pub boot_id: String,
    /// The shim itself.
    pub shim: ProcessIdentity,
    /// How far it is.
    pub phase: Phase,
    /// The named processes, in the spec's order.
    pub processes: Vec<ProcessState>,
    /// When the shim started, Unix milliseconds.
    pub started_at_ms: u64,
    /// When the last process was gone, Unix milliseconds.
    #[serde(default)]
    pub ended_at_ms: Option<u64>,
    /// A stop was requested (it may have come after a process ended by itself: see `ended_by`).
    #[serde(default)]
    pub stop_requested: bool,
    /// A stop was requested and something had to be killed when the grace was over.
    #[serde(default)]
    pub killed_after_grace: bool,
    /// Name of the process that ended, or failed to start, by itself and ended the rest with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<String>,
    /// Set when a process was ended because memory ran out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryState>,
    /// The end of what the processes wrote to stderr, once ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_tail: Option<String>,
}

impl State {
    /// Reads `DIR/state.json`. Errors: unreadable, not a state, or of a newer version.
    pub fn load(dir: &Path) -> Result<Self, StateError> {
        document::load(&dir.join(STATE_FILE), STATE_VERSION)
    }

    /// Parses the content of a state file.
    pub fn parse(text: &[u8]) -> Result<Self, StateError> {
        document::parse(text, Path::new(STATE_FILE), STATE_VERSION)
    }
}
