//! Folders and small files, durably.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use berth_model::id::ServiceName;

use crate::retention::LOOKED;
use crate::{LogsError, StreamKey};

/// Begins the names of folders whose service was deleted, and whose files are being removed.
pub(crate) const DELETED: &str = ".deleted-";

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), LogsError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(LogsError::io("sync", dir))
}

/// Makes a folder, durably: tells whether it is new.
pub(crate) fn make_dir(dir: &Path) -> Result<bool, LogsError> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {
            sync_dir(dir.parent().unwrap_or(Path::new(".")))?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(LogsError::io("make", dir)(error)),
    }
}

/// Makes a stream's folder and those above it, durably: an acknowledged line must not be in a folder
/// that a power cut takes away.
pub(crate) fn make_stream_dir(root: &Path, key: &StreamKey) -> Result<PathBuf, LogsError> {
    let dir = key.dir(root);
    if let Some(instance) = dir.parent()
        && let Some(service) = instance.parent()
    {
        make_dir(service)?;
        make_dir(instance)?;
    }
    make_dir(&dir)?;
    Ok(dir)
}

/// Writes a small file as a whole, durably.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<(), LogsError> {
    let failed = |what| LogsError::io(what, path);
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary).map_err(failed("make"))?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(failed("write"))?;
    fs::rename(&temporary, path).map_err(failed("rename"))?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

fn names(dir: &Path) -> Result<Vec<String>, LogsError> {
    let failed = || LogsError::io("list", dir);
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let is_dir = entry.file_type().map_err(failed())?.is_dir();
        match entry.file_name().into_string() {
            Ok(name) if is_dir => found.push(name),
            Ok(name) if name == LOOKED => {}
            _ => tracing::warn!(path = %entry.path().display(), "not a log: passed over"),
        }
    }
    Ok(found)
}

/// The streams on disk. Finishes deletions that were interrupted.
pub(crate) fn streams(root: &Path) -> Result<Vec<StreamKey>, LogsError> {
    let mut found = Vec::new();
    for service in names(root)? {
        let dir = root.join(&service);
        if service.starts_with(DELETED) {
            fs::remove_dir_all(&dir).map_err(LogsError::io("remove", &dir))?;
            continue;
        }
        if ServiceName::new(service.clone()).is_err() {
            tracing::warn!(path = %dir.display(), "not a log: passed over");
            continue;
        }
        for instance in names(&dir)? {
            for name in names(&dir.join(&instance))? {
                match StreamKey::of_folders(&instance, &name) {
                    Ok(key) if key.instance.slot.service.as_str() == service => found.push(key),
                    _ => {
                        let path = dir.join(&instance).join(name);
                        tracing::warn!(path = %path.display(), "not a log: passed over");
                    }
                }
            }
        }
    }
    Ok(found)
}

/// Moves a service's folder out of sight: where to, if there was one.
pub(crate) fn hide_service(
    root: &Path,
    service: &ServiceName,
) -> Result<Option<PathBuf>, LogsError> {
    let dir = root.join(service.as_str());
    let mut number = 0_u64;
    loop {
        let hidden = root.join(format!("{DELETED}{number}-{service}"));
        number += 1;
        if hidden.exists() {
            continue;
        }
        match fs::rename(&dir, &hidden) {
            Ok(()) => {
                sync_dir(root)?;
                return Ok(Some(hidden));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LogsError::io("rename", &dir)(error)),
        }
    }
}
