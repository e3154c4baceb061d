//! The embedded engine: SQLite, write-ahead log, every commit synced.

mod backup;
mod check;
mod history;
mod lock;
mod paths;
mod restore;
mod schema;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension};
use tokio::sync::{mpsc, oneshot, watch};

pub use backup::{Backup, backup};
pub use restore::{Restored, restore};

use self::check::{Depth, verify};
use self::history::History;
use self::lock::Lock;
use self::schema::{COLUMNS, end_of, entry};
use self::writer::{Request, Writer};
use crate::{Change, Entry, Identity, Listing, Store, StoreError, Txn};

/// Version of the schema that this program writes, and the newest that it reads.
pub const SCHEMA: u32 = 1;

/// Transactions that may wait; more make their senders wait.
const QUEUE: usize = 1024;

/// A store in one SQLite database, open in this process only. Cheap to clone; the last clone dropped
/// closes the database (which blocks shortly).
#[derive(Debug, Clone)]
pub struct SqliteStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    db: PathBuf,
    /// Always there but while the store is dropped.
    reader: Option<Mutex<Connection>>,
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
    history: Arc<History>,
    ticks: watch::Receiver<u64>,
    stopped: Arc<OnceLock<String>>,
    batches: Arc<AtomicU64>,
}

impl SqliteStore {
    /// Opens a database, or makes it if there is none. The folder must be there. Blocks: call it before
    /// the runtime starts, or from a blocking task.
    ///
    /// A database that is damaged, newer than this program, or none at all is refused, and neither it
    /// nor its write-ahead log is changed. Errors: [`StoreError::Locked`], [`StoreError::Corrupt`],
    /// [`StoreError::NotADatabase`], [`StoreError::NewerSchema`], [`StoreError::RestoreInterrupted`], and
    /// the system's.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let lock = Lock::take(path)?;
        prepare(path)?;
        let conn = schema::connect(path)?;
        let reader = schema::connect_reader(path)?;
        let revision = conn
            .query_row("SELECT revision FROM meta", [], |row| row.get(0))
            .map_err(StoreError::sqlite("read", path))?;
        let (ticks, ticking) = watch::channel(revision);
        let history = Arc::new(History::new(revision));
        let stopped = Arc::new(OnceLock::new());
        let batches = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            db: path.to_owned(),
            conn,
            revision,
            history: Arc::clone(&history),
            ticks,
            stopped: Arc::clone(&stopped),
            unchecked: 0,
            batches: Arc::clone(&batches),
            lock,
        };
        let (requests, queue) = mpsc::channel(QUEUE);
        let thread = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run(queue))
            .map_err(StoreError::io("start the writer of", path))?;
        Ok(Self(Arc::new(Inner {
            db: path.to_owned(),
            reader: Some(Mutex::new(reader)),
            requests: Some(requests),
            thread: Some(thread),
            history,
            ticks: ticking,
            stopped,
            batches,
        })))
    }

    /// Times that the store has written to disk since it was opened: transactions that wait at the
    /// same time share one.
    pub fn batches(&self) -> u64 {
        self.0.batches.load(Ordering::Relaxed)
    }

    /// Runs a read in a blocking task, within one read transaction.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<Result<T, String>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.0);
        let task = tokio::task::spawn_blocking(move || {
            let failed = || StoreError::sqlite("read", &inner.db);
            let Some(reader) = &inner.reader else {
                return Err(inner.stopped());
            };
            let mut conn = reader.lock().unwrap_or_else(PoisonError::into_inner);
            let transaction = conn.transaction().map_err(failed())?;
            let found = read(&transaction).map_err(failed())?;
            transaction.commit().map_err(failed())?;
            found.map_err(|detail| StoreError::Corrupt {
                path: inner.db.clone(),
                detail,
            })
        });
        // The task is not cancelled; it can only have ended early by a panic or with the runtime.
        task.await.unwrap_or_else(|_| Err(self.0.stopped()))
    }
}

/// Makes sure that there is a database that can be used.
fn prepare(path: &Path) -> Result<(), StoreError> {
    if paths::len(&paths::restoring(path))?.is_some() {
        return Err(StoreError::RestoreInterrupted {
            path: path.to_owned(),
        });
    }
    if paths::len(path)?.is_some() {
        return verify(path, Depth::Quick).map(drop);
    }
    if paths::len(&paths::wal(path))?.unwrap_or(0) > 0 {
        return Err(StoreError::Corrupt {
            path: path.to_owned(),
            detail: "the file is missing, and its write-ahead log is there".to_owned(),
        });
    }
    schema::create(path)
}

impl Inner {
    fn stopped(&self) -> StoreError {
        let reason = self.stopped.get();
        StoreError::Stopped {
            reason: reason.map_or_else(|| "its writer is gone".to_owned(), Clone::clone),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The writer closes the database last, as only it may fold the write-ahead log in.
        self.reader = None;
        self.requests = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer has panicked");
        }
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let prefix = prefix.to_owned();
        self.read(move |conn| {
            let revision = conn.query_row("SELECT revision FROM meta", [], |row| row.get(0))?;
            let mut statement = conn.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM entries
                 WHERE key >= ?1 AND (?2 IS NULL OR key < ?2) ORDER BY key"
            ))?;
            let rows = statement.query_map((&prefix, end_of(&prefix)), entry)?;
            let entries = rows.collect::<rusqlite::Result<Result<Vec<_>, _>>>()?;
            Ok(entries.map(|entries| Listing { revision, entries }))
        })
        .await
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let key = key.to_owned();
        self.read(move |conn| {
            let mut statement =
                conn.prepare_cached(&format!("SELECT {COLUMNS} FROM entries WHERE key = ?1"))?;
            let found = statement.query_row([key], entry).optional()?;
            Ok(found.transpose())
        })
        .await
    }

    async fn commit(&self, txn: Txn) -> Result<u64, StoreError> {
        txn.check()?;
        let (reply, answer) = oneshot::channel();
        let Some(requests) = &self.0.requests else {
            return Err(self.0.stopped());
        };
        if requests.send(Request { txn, reply }).await.is_err() {
            return Err(self.0.stopped());
        }
        answer.await.unwrap_or_else(|_| Err(self.0.stopped()))
    }

    async fn watch(
        &self,
        prefix: &str,
        from_revision: u64,
    ) -> Result<mpsc::Receiver<Change>, StoreError> {
        let ticks = self.0.ticks.clone();
        self.0.history.watch(ticks, prefix, from_revision)
    }

    async fn identity(&self) -> Result<Identity, StoreError> {
        self.read(|conn| {
            let (epoch, revision) =
                conn.query_row("SELECT epoch, revision FROM meta", [], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?;
            Ok(Ok(Identity {
                epoch,
                revision,
                schema: SCHEMA,
            }))
        })
        .await
    }
}
