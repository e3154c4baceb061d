//! A copy of a database in one file, while it is in use or not.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, backup as sqlite};

use super::check::{Depth, Sound, verify};
use super::lock::Lock;
use super::paths::{self, Temporary, beside};
use super::schema::connect_reader;
use crate::StoreError;

/// How long to wait before asking again a database that is locked for a moment.
const PAUSE: Duration = Duration::from_millis(20);

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backup {
    /// Epoch of the store that was copied.
    pub epoch: u64,
    /// Its revision.
    pub revision: u64,
    /// Keys.
    pub entries: u64,
    /// Length of the file.
    pub bytes: u64,
}

/// Copies a database, which may be in use, to one file: all of one revision, whole, verified and synced
/// before it appears under its name. An older file of that name is replaced. Blocks.
pub fn backup(db: &Path, out: &Path) -> Result<Backup, StoreError> {
    refuse_same(db, out)?;
    if paths::len(db)?.is_none() {
        return Err(StoreError::io("back up", db)(
            std::io::ErrorKind::NotFound.into(),
        ));
    }
    // Nobody may open it halfway; if somebody has it open, that one has checked it.
    let lock = match Lock::take(db) {
        Ok(lock) => Some(lock),
        Err(StoreError::Locked { .. }) => None,
        Err(error) => return Err(error),
    };
    if lock.is_some() {
        verify(db, Depth::Quick)?;
    }
    let temporary = Temporary::make(beside(out, ".part"))?;
    copy(db, temporary.path())?;
    let Sound { identity, entries } = verify(temporary.path(), Depth::Full)?;
    let bytes = paths::len(temporary.path())?.unwrap_or(0);
    temporary.put(out)?;
    Ok(Backup {
        epoch: identity.epoch,
        revision: identity.revision,
        entries,
        bytes,
    })
}

fn refuse_same(db: &Path, out: &Path) -> Result<(), StoreError> {
    let identity = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let same = identity(out).is_some_and(|found| identity(db) == Some(found));
    if same {
        let source = std::io::Error::other("it is the database itself: name another file");
        return Err(StoreError::io("write a backup to", out)(source));
    }
    Ok(())
}

fn copy(db: &Path, to: &Path) -> Result<(), StoreError> {
    let failed = || StoreError::sqlite("back up", db);
    let source = connect_reader(db)?;
    let mut target = Connection::open(to).map_err(StoreError::sqlite("write", to))?;
    let backup = sqlite::Backup::new(&source, &mut target).map_err(failed())?;
    // All pages in one step, so that they are of one revision whoever writes meanwhile.
    backup
        .run_to_completion(std::ffi::c_int::MAX, PAUSE, None)
        .map_err(failed())?;
    drop(backup);
    // One file, without a log beside it.
    target
        .query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))
        .map_err(failed())?;
    target
        .close()
        .map_err(|(_, error)| StoreError::sqlite("write", to)(error))
}
