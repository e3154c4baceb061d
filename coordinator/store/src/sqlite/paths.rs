//! The files around a database, and the few things done to files here.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

use crate::StoreError;

/// `path` with a suffix, as SQLite names the files beside a database.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// The write-ahead log of a database.
pub(super) fn wal(db: &Path) -> PathBuf {
    beside(db, "-wal")
}

/// The index of a database's write-ahead log; SQLite makes it anew whenever it is missing.
pub(super) fn shm(db: &Path) -> PathBuf {
    beside(db, "-shm")
}

/// Whose presence says that a restore began and did not end.
pub(super) fn restoring(db: &Path) -> PathBuf {
    beside(db, ".restoring")
}

/// A file's length; none if there is no file.
pub(super) fn len(path: &Path) -> Result<Option<u64>, StoreError> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_file() => Ok(Some(meta.len())),
        Ok(_) => Err(StoreError::NotADatabase {
            path: path.to_owned(),
            detail: "it is not a file".to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("look at", path)(error)),
    }
}

/// Makes an empty file that only its owner reads: SQLite gives its companions the same mode.
pub(super) fn make_private(path: &Path) -> Result<(), StoreError> {
    remove(path)?;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map(drop)
        .map_err(StoreError::io("make", path))
}

/// Gives a file to the owner of its folder, where root works on the store of the user that the coordinator
/// runs as: it could not be opened otherwise.
pub(super) fn give_to_owner(path: &Path) -> Result<(), StoreError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owner = fs::metadata(parent(path)).map_err(StoreError::io("look at", parent(path)))?;
    chown(path, Some(owner.uid()), Some(owner.gid())).map_err(StoreError::io("give away", path))
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Renames, without making that durable yet.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(StoreError::io("rename", from))
}

/// Makes a file's content durable.
pub(super) fn sync(path: &Path) -> Result<(), StoreError> {
    let file = File::open(path).map_err(StoreError::io("open", path))?;
    file.sync_all().map_err(StoreError::io("sync", path))
}

/// Makes the names in the folder of `path` durable.
pub(super) fn sync_parent(path: &Path) -> Result<(), StoreError> {
    sync(parent(path))
}

/// The folder of a file.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A file that is removed again unless it was put in its place.
#[derive(Debug)]
pub(super) struct Temporary(Option<PathBuf>);

impl Temporary {
    /// Makes an empty private file.
    pub(super) fn make(path: PathBuf) -> Result<Self, StoreError> {
        make_private(&path)?;
        Ok(Self(Some(path)))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new(""))
    }

    /// Syncs it and puts it in its place, durably.
    pub(super) fn put(mut self, to: &Path) -> Result<(), StoreError> {
        sync(self.path())?;
        rename(self.path(), to)?;
        self.0 = None;
        sync_parent(to)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // Best effort: what is left over is removed when the same is tried again.
            for suffix in ["", "-wal", "-shm", "-journal"] {
                let _ = fs::remove_file(beside(path, suffix));
            }
        }
    }
}
