//! Which runtime started what is in a start folder: without the marker, the process runtime.

use std::io::ErrorKind;
use std::path::Path;

use berth_model::node::RuntimeKind;
use serde::{Deserialize, Serialize};

use super::RuntimeError;

/// File name in a start folder.
pub(crate) const MARKER_FILE: &str = "runtime.json";

/// The version of the format that this build writes, and the newest that it reads.
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    version: u32,
    runtime: RuntimeKind,
}

/// What started the start in a folder. Errors: a marker that this version does not understand; then
/// nobody may touch what runs there.
pub(crate) fn read(dir: &Path) -> Result<RuntimeKind, RuntimeError> {
    let failed = |why: String| RuntimeError::Marker {
        dir: dir.to_owned(),
        why,
    };
    let text = match std::fs::read(dir.join(MARKER_FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(RuntimeKind::Process),
        Err(error) => return Err(failed(format!("{MARKER_FILE} cannot be read: {error}"))),
    };
    let marker: Marker = serde_json::from_slice(&text)
        .map_err(|error| failed(format!("{MARKER_FILE} is not understood: {error}")))?;
    if marker.version > VERSION {
        return Err(failed(format!(
            "{MARKER_FILE} has format version {}, and this build reads up to {VERSION}: upgrade the agent",
            marker.version
        )));
    }
    Ok(marker.runtime)
}

/// Says what is about to start something in a folder, before there is anything to start from.
#[cfg_attr(not(any(test, feature = "docker")), allow(dead_code))]
pub(crate) fn write(dir: &Path, runtime: RuntimeKind) -> std::io::Result<()> {
    let marker = Marker {
        version: VERSION,
        runtime,
    };
    // Whole or absent: a power cut must not leave half a marker beside a whole spec.
    let temporary = dir.join("runtime.tmp");
    let mut file = std::fs::File::create(&temporary)?;
    std::io::Write::write_all(&mut file, &serde_json::to_vec(&marker)?)?;
    file.sync_all()?;
    std::fs::rename(temporary, dir.join(MARKER_FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_started_it_is_remembered_and_never_guessed() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), RuntimeKind::Process);
        write(dir.path(), RuntimeKind::Docker).unwrap();
        assert_eq!(read(dir.path()).unwrap(), RuntimeKind::Docker);
        let file = dir.path().join(MARKER_FILE);
        for (text, says) in [
            ("{\"version\":2,\"runtime\":\"docker\"}", "upgrade"),
            ("{\"version\":1,\"runtime\":\"other\"}", "not understood"),
            ("", "not understood"),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = read(dir.path()).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
