//! Inside a Pod: one instance, from the coordinator's token to the module's exit code.
//!
//! `berth-agent pod prepare` is the init container, in Berth's own image: it joins with the one-time token, which
//! tells what to run, and fetches the package. `berth-agent pod run` is the main container, in the module's image:
//! an agent as on a node, with the process runtime, that starts its only instance once and ends with it. It ends
//! when all lines and the last status are on the coordinator's disk, for nothing of a Pod outlives it.

mod exit;
mod init;
mod prepare;
mod run;
mod settings;

use std::path::PathBuf;
use std::time::Duration;

use berth_model::instance::InstanceSpec;

use crate::data::{DataDir, DataError};
use crate::files::{FileError, read_optional, replace};
use crate::identity::IdentityError;
use crate::ledger::Refused;
use crate::rpc::connect::ConnectError;
use crate::run::RunError;

pub use exit::note_failure;
pub use init::{as_init, hear_signals, is_init};
pub use prepare::prepare;
pub use run::run;
pub use settings::{Settings, SettingsErrors, token};

/// Why a Pod cannot be prepared, or run.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// The coordinator refuses, or it cannot be asked at all.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The data folder cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The package cannot be had.
    #[error("{0}")]
    Package(String),
    /// The agent in it ended.
    #[error(transparent)]
    Run(#[from] RunError),
    /// What is to be run cannot be written down.
    #[error(transparent)]
    Ledger(#[from] Refused),
    /// The coordinator said nothing of what to run.
    #[error(
        "the coordinator told this Pod nothing to run: its token is one for nodes, or the coordinator is older than \
         this image"
    )]
    NoInstance,
    /// The init container has not run, or had another volume.
    #[error(
        "{0:?} is not there: `berth-agent pod prepare` must have run before, with the same volume at BERTH_POD_DATA"
    )]
    NotPrepared(PathBuf),
    /// What the init container left cannot be read.
    #[error("{path:?} is not usable: {problem}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// It took too long.
    #[error("not prepared within {after:?}; the last problem: {last}")]
    Late {
        /// The time it had.
        after: Duration,
        /// What kept it.
        last: String,
    },
    /// The Pod is being deleted.
    #[error("told to end before it was prepared")]
    ToldToEnd,
    /// A signal's handler cannot be set, or a process not be waited for.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
}

fn spec_file(data: &DataDir) -> PathBuf {
    data.root().join("pod.json")
}

/// Leaves for the main container what it is to run.
fn store_spec(data: &DataDir, spec: &InstanceSpec) -> Result<(), PodError> {
    let path = spec_file(data);
    let json = serde_json::to_vec(spec).map_err(|error| PodError::Damaged {
        path: path.clone(),
        problem: error.to_string(),
    })?;
    Ok(replace(&path, &json, 0o600)?)
}

fn load_spec(data: &DataDir) -> Result<InstanceSpec, PodError> {
    let path = spec_file(data);
    let Some(json) = read_optional(&path)? else {
        return Err(PodError::NotPrepared(path));
    };
    serde_json::from_slice(&json).map_err(|error| PodError::Damaged {
        path,
        problem: error.to_string(),
    })
}
