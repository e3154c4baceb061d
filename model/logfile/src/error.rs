//! What can go wrong with a log folder.

use std::io;
use std::path::{Path, PathBuf};

/// Why a log folder cannot be used as asked.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The system refused.
    #[error("cannot {what} {path:?}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Bytes in the middle of a segment are not a frame: the disk or somebody else changed them.
    #[error("{path:?} is damaged at offset {offset} of the log")]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Offset in the whole stream at which no frame could be read.
        offset: u64,
    },
}

impl LogError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            what,
            path: path.to_owned(),
            source,
        }
    }
}
