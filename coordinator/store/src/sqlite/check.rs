//! Looks a database over before it is used, and changes nothing in doing so.

use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::schema::{APPLICATION, COLUMNS, entry};
use super::{SCHEMA, paths};
use crate::{Identity, StoreError};

/// How thoroughly to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Structure and checksums: at each start.
    Quick,
    /// Indexes too: for backups.
    Full,
}

/// What a sound database holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sound {
    pub(super) identity: Identity,
    pub(super) entries: u64,
}

/// Verifies a database that no other process uses. Neither it nor its write-ahead log is changed.
pub(super) fn verify(db: &Path, depth: Depth) -> Result<Sound, StoreError> {
    header(db)?;
    let had_index = paths::len(&paths::shm(db))?.is_some();
    let result = open_untouched(db).and_then(|conn| {
        let sound = inspect(&conn, db, depth);
        drop(conn);
        sound
    });
    if result.is_err() && !had_index {
        paths::remove(&paths::shm(db))?;
    }
    result
}

fn corrupt(db: &Path, detail: impl Into<String>) -> StoreError {
    StoreError::Corrupt {
        path: db.to_owned(),
        detail: detail.into(),
    }
}

/// Looks at the first bytes, without SQLite: it would take an empty file for a new database, and
/// delete the log that belongs to it.
fn header(db: &Path) -> Result<(), StoreError> {
    let failed = |what| StoreError::io(what, db);
    let mut file = File::options()
        .read(true)
        .write(true)
        .open(db)
        .map_err(failed("open for writing"))?;
    let length = file.metadata().map_err(failed("look at"))?.len();
    if length == 0 {
        return Err(corrupt(db, "the file is empty"));
    }
    let mut header = [0; 100];
    let not = |detail: &str| StoreError::NotADatabase {
        path: db.to_owned(),
        detail: detail.to_owned(),
    };
    let whole = file.read_exact(&mut header);
    if !header.starts_with(b"SQLite format 3\0") {
        return Err(not("it does not begin as one"));
    }
    whole.map_err(|_| corrupt(db, "the file is cut off"))?;
    if header[68..72] != APPLICATION.to_be_bytes() {
        return Err(not("it is another program's SQLite database"));
    }
    Ok(())
}

/// Opens for reading only. Without a write-ahead log, SQLite is told that the file cannot change, so that it
/// makes no companions.
fn open_untouched(db: &Path) -> Result<Connection, StoreError> {
    let failed = StoreError::sqlite("open", db);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if paths::len(&paths::wal(db))?.unwrap_or(0) > 0 {
        return Connection::open_with_flags(db, flags).map_err(failed);
    }
    let uri = format!("file:{}?immutable=1", percent(db));
    Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI).map_err(failed)
}

fn percent(path: &Path) -> String {
    use std::fmt::Write;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-_.~".contains(&b);
    let mut text = String::new();
    for &byte in path.as_os_str().as_bytes() {
        if plain(byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

fn inspect(conn: &Connection, db: &Path, depth: Depth) -> Result<Sound, StoreError> {
    let failed = || StoreError::sqlite("check", db);
    let pragma = |name: &str| {
        conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, u32>(0))
            .map_err(failed())
    };
    if pragma("application_id")? != APPLICATION {
        return Err(corrupt(db, "its application id has changed"));
    }
    let found = pragma("user_version")?;
    if found > SCHEMA {
        return Err(StoreError::NewerSchema {
            path: db.to_owned(),
            found,
            known: SCHEMA,
        });
    }
    if found == 0 {
        return Err(corrupt(db, "it has no schema"));
    }
    let check = match depth {
        Depth::Quick => "PRAGMA quick_check(1)",
        Depth::Full => "PRAGMA integrity_check(1)",
    };
    let verdict: String = conn
        .query_row(check, [], |row| row.get(0))
        .map_err(failed())?;
    if verdict != "ok" {
        return Err(corrupt(db, verdict));
    }
    contents(conn, db, found)
}

/// Reads everything once and checks the sums.
fn contents(conn: &Connection, db: &Path, schema: u32) -> Result<Sound, StoreError> {
    // A statement that does not fit the tables, or a row that is missing, is damage too.
    let damaged = |error: rusqlite::Error| corrupt(db, error.to_string());
    let (epoch, revision): (u64, u64) = conn
        .query_row("SELECT epoch, revision FROM meta WHERE id = 1", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .map_err(damaged)?;
    let mut statement = conn
        .prepare(&format!("SELECT {COLUMNS} FROM entries"))
        .map_err(damaged)?;
    let mut rows = statement.query_map([], entry).map_err(damaged)?;
    let entries = rows.try_fold(0, |count, row| {
        let entry = row
            .map_err(damaged)?
            .map_err(|detail| corrupt(db, detail))?;
        if entry.mod_revision > revision {
            let detail = format!("{} is of a revision that was never committed", entry.key);
            return Err(corrupt(db, detail));
        }
        Ok(count + 1)
    })?;
    Ok(Sound {
        identity: Identity {
            epoch,
            revision,
            schema,
        },
        entries,
    })
}
