//! Files that are whole or absent, whatever happens in between.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The system refused an operation on a file.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {path:?}")]
pub struct FileError {
    /// What was tried.
    pub what: &'static str,
    /// On what.
    pub path: PathBuf,
    /// The system's error.
    pub source: io::Error,
}

impl FileError {
    /// For `map_err`.
    pub fn of(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self {
            what,
            path: path.to_owned(),
            source,
        }
    }
}

impl FileError {
    /// Whether there is no room on the disk.
    pub(crate) fn is_full(&self) -> bool {
        crate::disk::is_full(&self.source)
    }
}

/// Opens a file of a folder that belongs to somebody else: not through a link, and nothing but a plain file.
pub(crate) fn open_plain(path: &Path) -> io::Result<File> {
    // Or it would be waited for a FIFO's other end.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no plain file")),
    }
}

/// Replaces a file durably: temporary file, fsync, rename, fsync of the folder. `mode` holds from the
/// file's first moment. One writer at a time.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = PathBuf::from(name);
    // A leftover may have another mode.
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(FileError::of("remove", &temporary)(error));
        }
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .map_err(FileError::of("make", &temporary))?;
    // Whatever the umask: another user may be meant to read it.
    let written = file
        .set_permissions(Permissions::from_mode(mode))
        .and_then(|()| file.write_all(bytes))
        .map_err(FileError::of("write", &temporary))
        .and_then(|()| file.sync_all().map_err(FileError::of("sync", &temporary)));
    drop(file);
    if let Err(error) = written {
        // What was written of it would take room where there may be none.
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    std::fs::rename(&temporary, path).map_err(FileError::of("replace", path))?;
    sync_parent(path)
}

/// Makes a rename or creation in a file's folder durable.
fn sync_parent(path: &Path) -> Result<(), FileError> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    let dir = File::open(parent).map_err(FileError::of("open", parent))?;
    dir.sync_all().map_err(FileError::of("sync", parent))
}

/// Reads a file that may be absent.
pub fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::of("read", path)(error)),
    }
}

/// Makes a folder with its parents, for this user only: environments of modules lie below.
pub fn make_dir(path: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(FileError::of("make", path))
}

/// Makes an empty file; one that is there stays as it is. A link is never followed: the folder may be a module's.
pub fn touch(path: &Path) -> Result<(), FileError> {
    match File::options().write(true).create_new(true).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(FileError::of("make", path)(error))
        }
        _ => Ok(()),
    }
}

/// Deletes a folder with all that is in it; an absent one is no error.
pub fn remove_dir(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FileError::of("remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_secret_from_the_start_and_a_leftover_does_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(dir.path().join("key.tmp"), "leftover").unwrap();
        for text in ["one", "two"] {
            replace(&path, text.as_bytes(), 0o600).unwrap();
            assert_eq!(read_optional(&path).unwrap().unwrap(), text.as_bytes());
        }
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_optional(&dir.path().join("absent")).unwrap(), None);
    }
}
