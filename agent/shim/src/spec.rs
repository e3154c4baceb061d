//! `spec.json`: what a shim is to run, written by the agent before it launches the shim.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::document::{self, DocumentError};
use crate::sandbox::Sandbox;

/// The version of the format that this build writes, and the newest that it reads.
///
/// 2 added [`Sandbox`], which a shim that does not know it would leave out in silence.
pub const SPEC_VERSION: u32 = 2;

/// File name in a start folder.
pub const SPEC_FILE: &str = "spec.json";

/// Environment variable by which leftovers of a killed shim are found: `<instance>/<start>`.
pub const MARKER: &str = "BERTH_SHIM";

/// Environment variable with the start folder. It tells the starts of two fleets on one machine apart,
/// which may well have the same instance names.
pub const MARKER_DIR: &str = "BERTH_SHIM_DIR";

/// Most processes in a spec: their index is one byte in a log frame.
pub const MAX_PROCESSES: usize = 16;

/// Why a spec cannot be used.
pub type SpecError = DocumentError;

/// What to run in one start of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Version of the format, [`SPEC_VERSION`].
    pub version: u32,
    /// Text form of the instance, `SERVICE.REV.ORDINAL.ATTEMPT`.
    pub instance: String,
    /// Number of this start of the instance, from 1.
    pub start: u32,
    /// The named processes, started in this order.
    pub processes: Vec<ProcessSpec>,
    /// Milliseconds between SIGTERM and SIGKILL.
    pub stop_grace_ms: u64,
    /// Limits of the log on disk.
    pub log: LogSpec,
    /// What the processes are kept from. None: they may do whatever the shim may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox>,
}

/// One named process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Its name in logs and states, such as `module` or `transform`.
    pub name: String,
    /// Program and arguments. A program without `/` is looked up in the spec's PATH; a relative one
    /// with `/` is taken from `cwd`.
    pub argv: Vec<String>,
    /// The whole environment; the shim adds PATH where it is missing, and its marker variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub cwd: PathBuf,
    /// Whether its end ends the start (the default). A helper that may come and go has `false`.
    #[serde(default = "yes")]
    pub primary: bool,
}

fn yes() -> bool {
    true
}

/// Limits of the log on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSpec {
    /// Size in bytes at which a segment is closed and the next begun.
    pub segment_bytes: u64,
    /// Most bytes on disk that the agent has not yet shipped and deleted; lines beyond are dropped
    /// and counted.
    pub budget_bytes: u64,
}

impl Default for LogSpec {
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 20,
            budget_bytes: 64 << 20,
        }
    }
}

impl Spec {
    /// Reads and checks `DIR/spec.json`. Errors: unreadable, not a spec, of a newer version, or
    /// without a process to run.
    pub fn load(dir: &Path) -> Result<Self, SpecError> {
        let spec: Self = document::load(&dir.join(SPEC_FILE), SPEC_VERSION)?;
        spec.check().map_err(|why| DocumentError::Invalid {
            path: dir.join(SPEC_FILE),
            why,
        })?;
        Ok(spec)
    }

    /// Writes `DIR/spec.json` by way of a temporary file, so that it is whole or absent.
    pub fn store(&self, dir: &Path) -> Result<(), SpecError> {
        document::store(&dir.join(SPEC_FILE), self)
    }

    /// Says what is wrong with the spec, if anything.
    pub fn check(&self) -> Result<(), String> {
        if self.processes.is_empty() {
            return Err("it names no process".into());
        }
        if self.processes.len() > MAX_PROCESSES {
            return Err(format!("it names more than {MAX_PROCESSES} processes"));
        }
        for (index, process) in self.processes.iter().enumerate() {
            let name = &process.name;
            if name.is_empty() || name.len() > 255 {
                return Err(format!("process {index} has no usable name"));
            }
            if process.argv.first().is_none_or(String::is_empty) {
                return Err(format!("process {name:?} has no command"));
            }
            if self.processes[..index]
                .iter()
                .any(|other| other.name == *name)
            {
                return Err(format!("two processes are named {name:?}"));
            }
            let nul = |text: &String| text.contains('\0');
            let bad_key = |key: &String| key.is_empty() || key.contains(['=', '\0']);
            if process.argv.iter().any(nul)
                || process.env.values().any(nul)
                || process.env.keys().any(bad_key)
            {
                return Err(format!(
                    "process {name:?} has an argument or variable that no system takes"
                ));
            }
        }
        if !self.processes.iter().any(|process| process.primary) {
            return Err("none of its processes is primary".into());
        }
        Ok(())
    }

    /// The value of [`MARKER`] for this start.
    pub fn marker(&self) -> String {
        marker(&self.instance, self.start)
    }
}

/// The value of [`MARKER`] for a start.
pub fn marker(instance: &str, start: u32) -> String {
    format!("{instance}/{start}")
}
