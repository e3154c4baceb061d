//! The last route table on disk, so that a gateway serves again without its coordinator.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use berth_model::route::Table;
use serde::{Deserialize, Serialize};

/// The format that this build writes and reads.
const FORMAT: u32 = 1;

#[derive(Serialize)]
struct Outgoing<'a> {
    format: u32,
    table: &'a Table,
}

#[derive(Deserialize)]
struct Stored {
    format: u32,
    table: Table,
}

/// Why a table was neither written nor read.
#[derive(Debug, thiserror::Error)]
pub enum PersistError {
    /// The file or its folder cannot be used.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The table has no JSON form.
    #[error("route table: {0}")]
    Json(#[from] serde_json::Error),
}

/// Writes the table so that a crash leaves either the old file or the new one: temporary file, fsync,
/// rename, fsync of the folder.
pub fn save(path: &Path, table: &Table) -> Result<(), PersistError> {
    let bytes = serde_json::to_vec(&Outgoing {
        format: FORMAT,
        table,
    })?;
    write(path, &bytes).map_err(|source| PersistError::Io {
        path: path.to_owned(),
        source,
    })
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = beside(path, ".new");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// Reads the table; none if there is no file. A file that cannot be understood is moved to
/// `NAME.corrupt`, warned about, and counts as none: the coordinator will send the table anew.
pub fn load(path: &Path) -> Result<Option<Table>, PersistError> {
    let io_error = |source| PersistError::Io {
        path: path.to_owned(),
        source,
    };
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io_error(e)),
    };
    let reason = match serde_json::from_slice::<Stored>(&bytes) {
        Ok(stored) if stored.format == FORMAT => return Ok(Some(stored.table)),
        Ok(stored) => format!("format {} is not known to this version", stored.format),
        Err(e) => e.to_string(),
    };
    let aside = beside(path, ".corrupt");
    fs::rename(path, &aside).map_err(io_error)?;
    tracing::warn!(
        file = %path.display(), kept_as = %aside.display(), reason,
        "the route table on disk cannot be read; starting without one until the coordinator sends it"
    );
    Ok(None)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use berth_model::route::Order;

    use super::*;

    fn table() -> Table {
        let mut table = Table {
            version: Order {
                epoch: 1,
                term: 2,
                generation: 3,
            },
            ..Table::default()
        };
        table.services.insert(
            "dga".parse().unwrap(),
            berth_model::route::ServiceRoute::default(),
        );
        table
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.json");
        assert_eq!(load(&path).unwrap(), None);
        save(&path, &Table::default()).unwrap();
        save(&path, &table()).unwrap();
        assert_eq!(load(&path).unwrap(), Some(table()));
        assert!(!beside(&path, ".new").exists());
    }

    #[test]
    fn a_corrupt_file_is_kept_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.json");
        for bad in [
            "",
            "{\"format\":1",
            "{\"format\":9,\"table\":{\"version\":{\"epoch\":0,\"term\":0,\"generation\":0},\"services\":{}}}",
        ] {
            fs::write(&path, bad).unwrap();
            assert_eq!(load(&path).unwrap(), None, "{bad}");
            assert!(!path.exists());
            assert_eq!(fs::read_to_string(beside(&path, ".corrupt")).unwrap(), bad);
        }
    }

    #[test]
    fn an_unreadable_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(load(folder.path()).is_err());
        assert!(save(&folder.path().join("no/such/folder"), &table()).is_err());
    }
}
