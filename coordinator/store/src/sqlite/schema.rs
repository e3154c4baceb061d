//! Tables, and how a connection is set up.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OpenFlags, Row};

use super::SCHEMA;
use super::paths::{Temporary, beside};
use crate::{Entry, StoreError};

/// `application_id` of Berth's databases: "BRTH".
pub(super) const APPLICATION: u32 = 0x4252_5448;

/// Only a backup or a person looking in can hold SQLite's locks, and only shortly.
const PATIENCE: Duration = Duration::from_secs(10);

const TABLES: &str = "
    CREATE TABLE meta (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        epoch INTEGER NOT NULL,
        revision INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE entries (
        key TEXT NOT NULL UNIQUE,
        value BLOB NOT NULL,
        mod_revision INTEGER NOT NULL,
        sum INTEGER NOT NULL
    ) STRICT;
";

/// Columns of an entry, for [`entry`].
pub(super) const COLUMNS: &str = "key, value, mod_revision, sum";

/// Checksum of an entry: SQLite has none, and a flipped bit in desired state must not be believed.
pub(super) fn sum(key: &str, value: &[u8], mod_revision: u64) -> i64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key.as_bytes());
    hasher.update(&mod_revision.to_le_bytes());
    hasher.update(value);
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    i64::from_le_bytes(first)
}

/// Reads an entry and checks its sum; the inner error says what does not fit.
pub(super) fn entry(row: &Row<'_>) -> rusqlite::Result<Result<Entry, String>> {
    let entry = Entry {
        key: row.get(0)?,
        value: row.get(1)?,
        mod_revision: row.get(2)?,
    };
    let found: i64 = row.get(3)?;
    if found == sum(&entry.key, &entry.value, entry.mod_revision) {
        return Ok(Ok(entry));
    }
    Ok(Err(format!("the checksum of {} does not fit", entry.key)))
}

/// The first key behind all those that begin with `prefix`; none if there is no such key.
pub(super) fn end_of(prefix: &str) -> Option<String> {
    let (at, last) = prefix.char_indices().rev().find(|(_, c)| *c != char::MAX)?;
    // The next character that there is: surrogates are none.
    let next = char::from_u32(last as u32 + 1).unwrap_or('\u{e000}');
    Some(format!("{}{next}", &prefix[..at]))
}

/// The Unix time in seconds: where epochs begin, so that even a store made from nothing is above the
/// one that it replaces.
pub(super) fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |time| time.as_secs())
}

/// Makes a database in its final form: it appears under its name only when it is whole.
pub(super) fn create(db: &Path) -> Result<(), StoreError> {
    let new = Temporary::make(beside(db, ".new"))?;
    let failed = || StoreError::sqlite("make", db);
    let conn = Connection::open(new.path()).map_err(failed())?;
    conn.execute_batch(&format!(
        "PRAGMA application_id = {APPLICATION};
         PRAGMA user_version = {SCHEMA};
         BEGIN; {TABLES}
         INSERT INTO meta VALUES (1, {}, 0); COMMIT;",
        unix_seconds()
    ))
    .map_err(failed())?;
    close_with_log(conn, db)?;
    new.put(db)
}

/// Closes a new database such that it will be opened with a write-ahead log. The switch is not left to
/// that opening, as a crash in it would leave a rollback journal behind, which nobody looks for.
pub(super) fn close_with_log(conn: Connection, db: &Path) -> Result<(), StoreError> {
    conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))
        .map_err(StoreError::sqlite("write", db))?;
    conn.close()
        .map_err(|(_, error)| StoreError::sqlite("close", db)(error))
}

/// Opens a checked database for writing.
pub(super) fn connect(db: &Path) -> Result<Connection, StoreError> {
    let failed = || StoreError::sqlite("open", db);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(db, flags).map_err(failed())?;
    conn.busy_timeout(PATIENCE).map_err(failed())?;
    let mode: String = conn
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        .map_err(failed())?;
    if mode != "wal" {
        return Err(StoreError::Io {
            what: "keep a write-ahead log for",
            path: db.to_owned(),
            source: std::io::Error::other("its file system does not allow it"),
        });
    }
    // The writer makes checkpoints itself: an error of the automatic ones is told to nobody.
    conn.execute_batch(
        "PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA journal_size_limit = 16777216;",
    )
    .map_err(failed())?;
    Ok(conn)
}

/// Opens a database that is in use, to read it.
pub(super) fn connect_reader(db: &Path) -> Result<Connection, StoreError> {
    let failed = || StoreError::sqlite("open", db);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(db, flags).map_err(failed())?;
    conn.busy_timeout(PATIENCE).map_err(failed())?;
    Ok(conn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_where_the_next_key_begins() {
        assert_eq!(end_of("/a/").as_deref(), Some("/a0"));
        assert_eq!(end_of(""), None);
        assert_eq!(end_of("\u{10ffff}"), None);
        assert_eq!(end_of("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(end_of("\u{d7ff}").as_deref(), Some("\u{e000}"));
    }

    #[test]
    fn sums_depend_on_all_parts() {
        let one = sum("ab", b"c", 1);
        assert_ne!(one, sum("a", b"bc", 1));
        assert_ne!(one, sum("ab", b"c", 2));
        assert_ne!(one, sum("ab", b"d", 1));
    }
}
