//! A backup in the place of a database.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::check::{Depth, Sound, verify};
use super::lock::Lock;
use super::paths::{self, Temporary, beside};
use super::schema::{close_with_log, unix_seconds};
use crate::StoreError;

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The new epoch, above those of the backup and of the replaced database.
    pub epoch: u64,
    /// The revision from which the store goes on.
    pub revision: u64,
    /// Keys.
    pub entries: u64,
    /// Where the replaced database was put, if there was one.
    pub kept: Option<PathBuf>,
}

/// Puts a backup in the place of a database that no process uses. Blocks.
///
/// The backup is copied and verified wholly before anything is changed. The replaced database, damaged or
/// not, is kept beside the restored one as `NAME.before-restore-N`. The epoch rises, so that agents
/// take commands of the restored store although its revision is lower than what they have seen.
/// If it is interrupted halfway, the store does not open until it is run again.
pub fn restore(backup: &Path, db: &Path) -> Result<Restored, StoreError> {
    restore_at(backup, db, unix_seconds())
}

pub(super) fn restore_at(backup: &Path, db: &Path, now: u64) -> Result<Restored, StoreError> {
    let _lock = Lock::take(db)?;
    if paths::len(&paths::wal(backup))?.unwrap_or(0) > 0 {
        return Err(StoreError::NotADatabase {
            path: backup.to_owned(),
            detail: "it has a write-ahead log beside it, so it is no backup: make one with \
                     `berth-coordinator backup FILE`"
                .to_owned(),
        });
    }
    let copy = Temporary::make(beside(db, ".restore"))?;
    fs::copy(backup, copy.path()).map_err(StoreError::io("copy", backup))?;
    let Sound { identity, entries } =
        verify(copy.path(), Depth::Full).map_err(|error| about(error, backup))?;
    let replaced = paths::len(db)?.is_some().then(|| verify(db, Depth::Quick));
    // Of a database that cannot be read, the epoch is unknown; but it was a time in the past, plus one for
    // each restore.
    let replaced_epoch = match &replaced {
        Some(Ok(sound)) => sound.identity.epoch,
        _ => 0,
    };
    let epoch = now.max(identity.epoch + 1).max(replaced_epoch + 1);
    set_epoch(copy.path(), epoch)?;
    paths::give_to_owner(copy.path())?;
    let kept = exchange(copy, db)?;
    Ok(Restored {
        epoch,
        revision: identity.revision,
        entries,
        kept,
    })
}

/// An error about the copy is one about the backup, for whoever reads it.
fn about(error: StoreError, backup: &Path) -> StoreError {
    let path = backup.to_owned();
    match error {
        StoreError::Corrupt { detail, .. } => StoreError::Corrupt { path, detail },
        StoreError::NotADatabase { detail, .. } => StoreError::NotADatabase { path, detail },
        StoreError::NewerSchema { found, known, .. } => {
            StoreError::NewerSchema { path, found, known }
        }
        other => other,
    }
}

fn set_epoch(db: &Path, epoch: u64) -> Result<(), StoreError> {
    let failed = || StoreError::sqlite("write", db);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let conn = Connection::open_with_flags(db, flags).map_err(failed())?;
    conn.execute("UPDATE meta SET epoch = ?1", [epoch])
        .map_err(failed())?;
    close_with_log(conn, db)
}

/// Moves the database and its log aside and the copy in. A marker stands while they could be taken apart:
/// a log beside the wrong database would be played into it.
fn exchange(copy: Temporary, db: &Path) -> Result<Option<PathBuf>, StoreError> {
    let marker = paths::restoring(db);
    paths::sync(copy.path())?;
    if paths::len(&marker)?.is_none() {
        paths::make_private(&marker)?;
        paths::sync_parent(db)?;
    }
    let (had_db, had_log) = (
        paths::len(db)?.is_some(),
        paths::len(&paths::wal(db))?.is_some(),
    );
    let mut kept = None;
    if had_db || had_log {
        let aside = free_name(db)?;
        if had_log {
            paths::rename(&paths::wal(db), &paths::wal(&aside))?;
        }
        if had_db {
            paths::rename(db, &aside)?;
            kept = Some(aside);
        }
    }
    paths::remove(&paths::shm(db))?;
    paths::sync_parent(db)?;
    copy.put(db)?;
    paths::remove(&marker)?;
    paths::sync_parent(db)?;
    Ok(kept)
}

/// The first free `NAME.before-restore-N`.
fn free_name(db: &Path) -> Result<PathBuf, StoreError> {
    let mut number = 1_u32;
    loop {
        let name = beside(db, &format!(".before-restore-{number}"));
        if paths::len(&name)?.is_none() && paths::len(&paths::wal(&name))?.is_none() {
            return Ok(name);
        }
        number += 1;
    }
}
