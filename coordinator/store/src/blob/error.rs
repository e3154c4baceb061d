//! What can go wrong with blobs.

use std::io;
use std::path::{Path, PathBuf};

/// Why a blob could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The bytes do not begin where the upload stands: go on at `expected`.
    #[error("bytes of offset {offset} were sent to an upload that stands at {expected}")]
    WrongOffset {
        /// What was sent.
        offset: u64,
        /// Where the upload goes on; the size if the blob is whole.
        expected: u64,
    },
    /// A later upload of the same blob has taken over.
    #[error("another upload of the same blob has taken over")]
    Superseded,
    /// The upload has not reached its size: go on at `offset`.
    #[error("the upload stands at {offset} of {size} bytes")]
    Incomplete {
        /// Where it stands.
        offset: u64,
        /// The size it should have.
        size: u64,
    },
    /// The bytes are not those of the digest. The upload was thrown away: begin anew.
    #[error(
        "the {size} uploaded bytes do not have the digest blake3:{digest}; they were thrown away"
    )]
    WrongContent {
        /// The digest they should have, in hexadecimal.
        digest: String,
        /// Bytes that were uploaded.
        size: u64,
    },
    /// There is no such blob.
    #[error("there is no blob blake3:{digest}")]
    NotFound {
        /// The digest in hexadecimal.
        digest: String,
    },
    /// The disk is full. What was acknowledged before stays, and the upload can go on once there is room.
    #[error("the disk of {path:?} is full: make room and go on with the upload")]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {what} {path:?}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl BlobError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            let path = path.to_owned();
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Self::DiskFull { path }
                }
                _ => Self::Io { what, path, source },
            }
        }
    }
}
