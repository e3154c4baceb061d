//! What a launcher leaves beside a start that its shim does not clear away.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{fork, systemd};
use crate::runtime::RuntimeError;
use crate::runtime::process::io_error;

/// File in a start folder.
const FILE: &str = "launcher.json";

/// The version of the format that this build writes, and the newest that it reads.
const VERSION: u32 = 1;

/// What is to be cleared away, and by which launcher: it may not be the one that starts the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "launcher", rename_all = "kebab-case")]
pub(in crate::runtime::process) enum Record {
    /// Control groups.
    Fork {
        /// Their folders.
        cgroups: Vec<PathBuf>,
    },
    /// A transient unit.
    Systemd {
        /// Its name.
        unit: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Versioned {
    version: u32,
    #[serde(flatten)]
    record: Record,
}

/// Writes a record, before there is anything to clear away.
pub(in crate::runtime::process) fn write(dir: &Path, record: &Record) -> Result<(), RuntimeError> {
    let versioned = Versioned {
        version: VERSION,
        record: record.clone(),
    };
    let text = serde_json::to_vec(&versioned).map_err(std::io::Error::other);
    let temporary = dir.join("launcher.tmp");
    text.and_then(|text| fs::write(&temporary, text))
        .and_then(|()| fs::rename(&temporary, dir.join(FILE)))
        .map_err(io_error(format!("write {FILE} in {}", dir.display())))
}

/// The record of a start; none where nothing is to be cleared away.
fn read(dir: &Path) -> Result<Option<Record>, RuntimeError> {
    let failed = || io_error(format!("read {FILE} in {}", dir.display()));
    let text = match fs::read(dir.join(FILE)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed())?,
    };
    let versioned = serde_json::from_slice::<Versioned>(&text).map_err(std::io::Error::other);
    let versioned = versioned.map_err(failed())?;
    if versioned.version > VERSION {
        let why = format!(
            "it has format version {}, and this build reads up to {VERSION}: upgrade the agent",
            versioned.version
        );
        return Err(failed()(std::io::Error::other(why)));
    }
    Ok(Some(versioned.record))
}

/// Kills what is left of a start whose shim is gone, and clears away what was around it. Idempotent. **Blocking**, bounded
/// by some seconds.
pub(in crate::runtime::process) fn clear(dir: &Path) -> Result<(), RuntimeError> {
    match read(dir)? {
        None => return Ok(()),
        Some(Record::Fork { cgroups }) => fork::clear(&cgroups)?,
        Some(Record::Systemd { unit }) => systemd::clear(&unit)?,
    }
    // Nothing is left to clear away: the next agent need not ask.
    let _ = fs::remove_file(dir.join(FILE));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_not_cleared() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
        clear(dir.path()).unwrap();
        let record = Record::Fork {
            cgroups: vec![dir.path().join("no/such/group")],
        };
        write(dir.path(), &record).unwrap();
        assert_eq!(read(dir.path()).unwrap(), Some(record));
        clear(dir.path()).unwrap();
        assert!(!dir.path().join(FILE).exists());
        for text in ["{\"version\":2,\"launcher\":\"fork\",\"cgroups\":[]}", "{}"] {
            fs::write(dir.path().join(FILE), text).unwrap();
            assert!(clear(dir.path()).is_err(), "{text}");
        }
    }
}
