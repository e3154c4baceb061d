//! Small files that must be whole or absent.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::PkiError;

/// Mode of secrets.
pub(super) const PRIVATE: u32 = 0o600;
/// Mode of what everybody may read.
pub(super) const PUBLIC: u32 = 0o644;

/// Makes a file that must not be there yet, on disk when this returns. Answers false, and leaves
/// the file alone, if it is there.
pub(super) fn create(path: &Path, content: &[u8], mode: u32) -> Result<bool, PkiError> {
    let temp = write_temp(path, content, mode).map_err(PkiError::file(path))?;
    let made = match renameat_with(CWD, &temp, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::EXIST) => Ok(false),
        // File systems without RENAME_NOREPLACE have hard links, which do not replace either.
        Err(rustix::io::Errno::INVAL) => match fs::hard_link(&temp, path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        },
        Err(error) => Err(error.into()),
    };
    if temp.exists() {
        // Left over only where it was linked or not wanted; failing to remove it harms nobody.
        let _ = fs::remove_file(&temp);
    }
    let made = made.map_err(PkiError::file(path))?;
    sync_parent(path).map_err(PkiError::file(path))?;
    Ok(made)
}

/// Writes a file or puts it in the place of the one that is there, on disk when this returns.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), PkiError> {
    let temp = write_temp(path, content, mode).map_err(PkiError::file(path))?;
    fs::rename(&temp, path)
        .and_then(|()| sync_parent(path))
        .map_err(PkiError::file(path))
}

/// Takes a file away, if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), PkiError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(PkiError::file(path)(error)),
        _ => Ok(()),
    }
}

/// The file's text; none if there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PkiError::file(path)(error)),
    }
}

/// Takes a secret's permissions away from everybody but its owner, should somebody have widened them.
pub(super) fn tighten(path: &Path) -> Result<(), PkiError> {
    fs::set_permissions(path, fs::Permissions::from_mode(PRIVATE)).map_err(PkiError::file(path))
}

/// The temporary file has its mode from the start, so that a secret is never readable by others.
fn write_temp(path: &Path, content: &[u8], mode: u32) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temp = path.with_file_name(format!(".{name}.{:016x}", rand::random::<u64>()));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temp)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    if let Err(error) = written {
        let _ = fs::remove_file(&temp);
        return Err(error);
    }
    Ok(temp)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn create_never_replaces_and_leaves_nothing_else_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        assert!(create(&path, b"one", PRIVATE).unwrap());
        assert!(!create(&path, b"two", PRIVATE).unwrap());
        assert_eq!(read(&path).unwrap().unwrap(), "one");
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, PRIVATE);
        replace(&path, b"three", PRIVATE).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), "three");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(read(&dir.path().join("other")).unwrap().is_none());
    }
}
