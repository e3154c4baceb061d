//! What can go wrong between two processes.

use std::io;
use std::path::PathBuf;

/// Why a hand-over did not come about.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// A file or socket of the meeting place.
    #[error("cannot {what} {path}", path = path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The connection between the two.
    #[error("the connection to the other process failed")]
    Link(#[source] io::Error),
    /// The other process ended, or closed the connection.
    #[error("the other process has gone")]
    Gone,
    /// The other process said no.
    #[error("the other process refused: {0}")]
    Refused(String),
    /// The process at the other end belongs to someone else.
    #[error(
        "the process at the other end belongs to user {0}; only this process' own user and root may"
    )]
    Stranger(u32),
    /// What came is not what the protocol says.
    #[error("the other process speaks another protocol: {0}")]
    Protocol(String),
    /// A step took too long.
    #[error("the other process took too long to {0}")]
    TooLong(&'static str),
    /// Someone holds the lock, and there was no talking to it.
    #[error(
        "{path} is held by a running process that does not hand over ({why}); end that process first",
        path = path.display()
    )]
    Held {
        /// The lock's file.
        path: PathBuf,
        /// What the last attempt met.
        why: String,
    },
    /// Nobody serves, so there is nobody to replace.
    #[error("no process is serving at {path}; start it instead", path = path.display())]
    Nobody {
        /// The meeting place.
        path: PathBuf,
    },
    /// The new process ended before it took over.
    #[error("the new process ended before it took over ({0}); the old one serves on")]
    Ended(std::process::ExitStatus),
}
