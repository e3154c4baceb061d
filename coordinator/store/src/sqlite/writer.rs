//! The one thread that writes: whatever waits is committed, and synced, together.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rusqlite::{Connection, ErrorCode, OptionalExtension, ffi, params};
use tokio::sync::{mpsc, oneshot, watch};

use super::history::History;
use super::lock::Lock;
use super::schema::sum;
use crate::{Change, Op, StoreError, Txn};

/// Most transactions in one commit.
const BATCH: usize = 256;

/// Pages that were perhaps written since the last checkpoint, after which the next is due.
const CHECKPOINT_PAGES: usize = 1000;

/// Pages that one operation may write: of the table and of its index.
const PAGES_PER_OP: usize = 3;

/// A transaction on its way, already checked against the limits.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) txn: Txn,
    pub(super) reply: oneshot::Sender<Result<u64, StoreError>>,
}

/// What one transaction of a batch came to, if the batch is committed.
enum Outcome {
    Done(u64),
    Conflict(String),
}

/// The writer's state, moved into its thread.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) db: PathBuf,
    pub(super) conn: Connection,
    pub(super) revision: u64,
    pub(super) history: Arc<History>,
    pub(super) ticks: watch::Sender<u64>,
    /// Why the writer ended, once it has.
    pub(super) stopped: Arc<OnceLock<String>>,
    pub(super) unchecked: usize,
    /// Commits of SQLite, each of a batch.
    pub(super) batches: Arc<AtomicU64>,
    /// Released last, when the database is closed.
    pub(super) lock: Lock,
}

impl Writer {
    /// Serves requests until the store is closed, or until it is uncertain what is on disk.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut batch = Vec::new();
        while requests.blocking_recv_many(&mut batch, BATCH) > 0 {
            if let Err(error) = self.serve(&mut batch) {
                self.stop(&error, batch);
                break;
            }
            if self.unchecked > CHECKPOINT_PAGES
                && let Err(error) = self.checkpoint()
            {
                self.stop(&error, Vec::new());
                break;
            }
        }
        let Self { conn, lock, .. } = self;
        if let Err((_, error)) = conn.close() {
            tracing::warn!(%error, "the store was not closed cleanly");
        }
        drop(lock);
    }

    fn stop(&self, error: &rusqlite::Error, batch: Vec<Request>) {
        tracing::error!(%error, "the store stops: it is uncertain what is on disk");
        let reason = self.stopped.get_or_init(|| error.to_string());
        for request in batch {
            let reason = reason.clone();
            // Who has gone away does not wait for it.
            let _ = request.reply.send(Err(StoreError::Stopped { reason }));
        }
    }

    /// Commits a batch and answers. An error means that the store cannot go on; the batch then still
    /// holds its requests.
    fn serve(&mut self, batch: &mut Vec<Request>) -> rusqlite::Result<()> {
        let before = self.revision;
        match self.commit(batch) {
            Ok((outcomes, changes)) => {
                if !changes.is_empty() {
                    self.history.publish(changes);
                    self.ticks.send_replace(self.revision);
                }
                for (request, outcome) in batch.drain(..).zip(outcomes) {
                    let _ = request.reply.send(match outcome {
                        Outcome::Done(revision) => Ok(revision),
                        Outcome::Conflict(key) => Err(StoreError::Conflict { key }),
                    });
                }
                Ok(())
            }
            Err(error) => {
                self.revision = before;
                if !self.conn.is_autocommit() {
                    self.conn.execute_batch("ROLLBACK")?;
                }
                if !is_harmless(&error) {
                    return Err(error);
                }
                for request in batch.drain(..) {
                    let error = StoreError::sqlite("write", &self.db)(copy(&error));
                    let _ = request.reply.send(Err(error));
                }
                Ok(())
            }
        }
    }

    fn commit(&mut self, batch: &[Request]) -> rusqlite::Result<(Vec<Outcome>, Vec<Change>)> {
        let mut changes = Vec::new();
        let mut outcomes = Vec::with_capacity(batch.len());
        let before = self.revision;
        self.conn.execute_batch("BEGIN IMMEDIATE")?;
        for request in batch {
            outcomes.push(self.apply(&request.txn, &mut changes)?);
        }
        if self.revision != before {
            self.conn
                .prepare_cached("UPDATE meta SET revision = ?1 WHERE id = 1")?
                .execute([self.revision])?;
        }
        self.conn.execute_batch("COMMIT")?;
        self.batches.fetch_add(1, Ordering::Relaxed);
        Ok((outcomes, changes))
    }

    /// Applies one transaction. It sees those before it in the batch, as if they were committed.
    fn apply(&mut self, txn: &Txn, changes: &mut Vec<Change>) -> rusqlite::Result<Outcome> {
        let mut look = self
            .conn
            .prepare_cached("SELECT mod_revision FROM entries WHERE key = ?1")?;
        for guard in &txn.guards {
            let found: Option<u64> = look.query_row([guard.key()], |row| row.get(0)).optional()?;
            if !guard.holds(found) {
                return Ok(Outcome::Conflict(guard.key().to_owned()));
            }
        }
        let mut put = self.conn.prepare_cached(
            "INSERT INTO entries (key, value, mod_revision, sum) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (key) DO UPDATE SET value = ?2, mod_revision = ?3, sum = ?4",
        )?;
        let mut delete = self
            .conn
            .prepare_cached("DELETE FROM entries WHERE key = ?1")?;
        let revision = self.revision + 1;
        let first = changes.len();
        for op in &txn.ops {
            let value = match op {
                Op::Put(key, value) => {
                    put.execute(params![key, value, revision, sum(key, value, revision)])?;
                    Some(value.clone())
                }
                Op::Delete(key) if delete.execute([key])? == 0 => continue,
                Op::Delete(_) => None,
            };
            let key = op.key().to_owned();
            changes.push(Change {
                revision,
                key,
                value,
            });
        }
        if changes.len() > first {
            self.revision = revision;
            let bytes: usize = txn.ops.iter().map(Op::bytes).sum();
            self.unchecked += PAGES_PER_OP * txn.ops.len() + bytes / 4096;
        }
        Ok(Outcome::Done(self.revision))
    }

    /// Moves the write-ahead log into the database, as far as readers allow.
    fn checkpoint(&mut self) -> rusqlite::Result<()> {
        self.unchecked = 0;
        let result = self
            .conn
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        match result {
            Err(error) if is_harmless(&error) => {
                tracing::warn!(%error, "the store's log could not be shortened");
                Ok(())
            }
            result => result,
        }
    }
}

/// Whether after this error it is certain that nothing was changed. After a failed sync it is not: the
/// system may have dropped what it could not write, and would call the next sync a success.
fn is_harmless(error: &rusqlite::Error) -> bool {
    let shm_full = error
        .sqlite_error()
        .is_some_and(|error| error.extended_code == ffi::SQLITE_IOERR_SHMSIZE);
    shm_full
        || matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
        )
}

/// SQLite's errors cannot be cloned, and every request of a batch is told.
fn copy(error: &rusqlite::Error) -> rusqlite::Error {
    match error {
        rusqlite::Error::SqliteFailure(code, message) => {
            rusqlite::Error::SqliteFailure(*code, message.clone())
        }
        other => rusqlite::Error::SqliteFailure(
            ffi::Error::new(ffi::SQLITE_ERROR),
            Some(other.to_string()),
        ),
    }
}
