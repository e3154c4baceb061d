//! The embedded engine: SQLite, write-ahead log, every commit synced.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::{Change, Entry, Identity, Listing, Store, StoreError, Txn};

/// Version of the schema that this program writes, and the newest that it reads.
pub const SCHEMA: u32 = 1;

/// A store in one SQLite database, open in this process only.
#[derive(Debug, Clone)]
pub struct SqliteStore {}

impl SqliteStore {
    /// Opens a database, or makes it if there is none. The folder must be there. Blocks: call it before
    /// the runtime starts, or from a blocking task.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        unimplemented!("{path:?}")
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn list(&self, _prefix: &str) -> Result<Listing, StoreError> {
        unimplemented!()
    }
    async fn get(&self, _key: &str) -> Result<Option<Entry>, StoreError> {
        unimplemented!()
    }
    async fn commit(&self, _txn: Txn) -> Result<u64, StoreError> {
        unimplemented!()
    }
    async fn watch(&self, _: &str, _: u64) -> Result<mpsc::Receiver<Change>, StoreError> {
        unimplemented!()
    }
    async fn identity(&self) -> Result<Identity, StoreError> {
        unimplemented!()
    }
}

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

/// Copies a database, which may be in use, to one file, whole and verified. Blocks.
pub fn backup(db: &Path, out: &Path) -> Result<Backup, StoreError> {
    unimplemented!("{db:?} {out:?}")
}

/// Puts a backup in the place of a database that no process uses. Blocks.
pub fn restore(backup: &Path, db: &Path) -> Result<Restored, StoreError> {
    unimplemented!("{db:?} {backup:?}")
}
