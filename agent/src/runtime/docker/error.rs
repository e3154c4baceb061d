//! What may be wrong between this agent and the Docker daemon.

use std::path::PathBuf;
use std::time::Duration;

use crate::runtime::RuntimeError;

/// Why the daemon did not do as told.
#[derive(Debug, thiserror::Error)]
pub(super) enum DaemonError {
    /// Nobody answers at its socket.
    #[error("Docker does not answer at {socket:?}")]
    Away {
        /// The socket.
        socket: PathBuf,
        /// The system's error.
        source: bollard::errors::Error,
    },
    /// It takes too long.
    #[error("Docker at {socket:?} does not answer within {} s", after.as_secs())]
    Slow {
        /// The socket.
        socket: PathBuf,
        /// How long it was waited for.
        after: Duration,
    },
    /// It refused.
    #[error("Docker refuses ({status}): {message}")]
    Refused {
        /// As in HTTP.
        status: u16,
        /// Its words.
        message: String,
    },
    /// It said what cannot be understood, or broke off.
    #[error("Docker's answer cannot be used")]
    Answer(#[source] bollard::errors::Error),
}

impl DaemonError {
    /// Sorts an error of the client.
    pub(super) fn of(
        socket: &std::path::Path,
        error: bollard::errors::Error,
        after: Duration,
    ) -> Self {
        use bollard::errors::Error;
        let socket = || socket.to_owned();
        match error {
            Error::DockerResponseServerError {
                status_code,
                message,
            } => Self::Refused {
                status: status_code,
                message,
            },
            Error::RequestTimeoutError => Self::Slow {
                socket: socket(),
                after,
            },
            source @ (Error::SocketNotFoundError(_)
            | Error::IOError { .. }
            | Error::HyperResponseError { .. }
            | Error::HyperLegacyError { .. }) => Self::Away {
                socket: socket(),
                source,
            },
            other => Self::Answer(other),
        }
    }

    /// The thing that was asked for does not exist.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// There is one of that name already, or it is already as it should be.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { status: 409, .. })
    }

    /// It may be different in a while, without anybody changing what was asked for.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Away { .. } | Self::Slow { .. } => true,
            Self::Refused { status, .. } => *status >= 500,
            Self::Answer(_) => false,
        }
    }
}

/// An error of the daemon with what was tried.
pub(super) fn failed(what: impl Into<String>) -> impl FnOnce(DaemonError) -> RuntimeError {
    move |source| RuntimeError::Daemon {
        what: what.into(),
        source: Box::new(source),
    }
}
