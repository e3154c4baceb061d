//! One process per database.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::paths::{beside, give_to_owner};
use crate::StoreError;

/// Held for as long as the database is in use; the system releases it when the process dies.
///
/// A file of its own, for SQLite's own locks must not keep a backup from reading.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, without waiting. Errors: [`StoreError::Locked`].
    pub(super) fn take(db: &Path) -> Result<Self, StoreError> {
        let path = beside(db, ".lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        give_to_owner(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(Errno::WOULDBLOCK) => Err(StoreError::Locked {
                path: db.to_owned(),
            }),
            Err(error) => Err(StoreError::io("lock", &path)(error.into())),
        }
    }
}
