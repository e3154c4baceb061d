//! What can go wrong with a store.

use std::io;
use std::path::{Path, PathBuf};

use crate::{MAX_TXN_BYTES, MAX_TXN_OPS};

/// Why a store did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A guard of the transaction does not hold; nothing was changed.
    #[error("{key} has changed in the meantime")]
    Conflict {
        /// The guard's key.
        key: String,
    },
    /// The transaction exceeds the limits; nothing was tried.
    #[error(
        "a transaction of {ops} operations, {guards} guards and {bytes} bytes is too large: the limits \
         are {MAX_TXN_OPS} operations, {MAX_TXN_OPS} guards and {MAX_TXN_BYTES} bytes"
    )]
    TooLarge {
        /// Its operations.
        ops: usize,
        /// Its guards.
        guards: usize,
        /// Bytes of its keys and values.
        bytes: usize,
    },
    /// The transaction changes a key twice; nothing was tried.
    #[error("a transaction changes {key} twice")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// Changes of that revision are not kept any more: list, and watch from there.
    #[error("changes before revision {oldest} are not kept any more")]
    Compacted {
        /// The earliest revision that can be watched from.
        oldest: u64,
    },
    /// The disk is full; nothing was changed, and the store is whole. Worth trying again later.
    #[error("the disk of {path:?} is full: make room, nothing was changed")]
    DiskFull {
        /// The database.
        path: PathBuf,
    },
    /// Another process has the store open.
    #[error(
        "{path:?} is in use by another berth-coordinator: stop that one, or give this one a data folder of its own"
    )]
    Locked {
        /// The database.
        path: PathBuf,
    },
    /// The database cannot be trusted. Nothing was changed.
    #[error(
        "{path:?} is damaged ({detail}); nothing was changed. Restore a backup with \
         `berth-coordinator restore FILE`; the damaged database is then kept beside the restored one"
    )]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The file is something else than a database of Berth. Nothing was changed.
    #[error(
        "{path:?} is not a database of Berth ({detail}); nothing was changed. If it is in the way, move it \
         aside, or restore a backup with `berth-coordinator restore FILE`"
    )]
    NotADatabase {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// A newer Berth has written the database. Nothing was changed.
    #[error(
        "{path:?} was written by a newer Berth (schema {found}, this one knows up to {known}); nothing was \
         changed. Run that version, or restore an older backup with `berth-coordinator restore FILE`"
    )]
    NewerSchema {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest schema that this program knows.
        known: u32,
    },
    /// A restore did not get to its end. Nothing was changed.
    #[error("a restore of {path:?} was interrupted: run `berth-coordinator restore FILE` again")]
    RestoreInterrupted {
        /// The database.
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
    /// SQLite refused.
    #[error("cannot {what} {path:?}")]
    Sqlite {
        /// What was tried.
        what: &'static str,
        /// The database.
        path: PathBuf,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// The store has stopped after an error that leaves it unsure what is on disk. The process must end
    /// and start anew; only then can it be trusted again.
    #[error("the store has stopped: {reason}; start berth-coordinator anew")]
    Stopped {
        /// The first error.
        reason: String,
    },
}

impl StoreError {
    /// Whether the same call may succeed later without anything being repaired by hand in between
    /// other than room on the disk.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::DiskFull { .. })
    }

    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            let path = path.to_owned();
            if source.kind() == io::ErrorKind::StorageFull {
                return Self::DiskFull { path };
            }
            Self::Io { what, path, source }
        }
    }

    pub(crate) fn sqlite(
        what: &'static str,
        path: &Path,
    ) -> impl FnOnce(rusqlite::Error) -> Self + use<> {
        use rusqlite::ErrorCode;
        let path = path.to_owned();
        move |source| match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::DiskFull { path },
            Some(ErrorCode::DatabaseCorrupt) => Self::Corrupt {
                path,
                detail: source.to_string(),
            },
            Some(ErrorCode::NotADatabase) => Self::NotADatabase {
                path,
                detail: source.to_string(),
            },
            _ => Self::Sqlite { what, path, source },
        }
    }
}
