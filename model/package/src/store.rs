//! The folder of unpacked packages: `STORE/<hex of the digest>/`, each complete, durable, read-only.

use std::fs;
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use berth_model::digest::PackageDigest;
use berth_model::manifest::{self, Manifest};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::disk::Disk;
use crate::error::{PackageError, UnpackError};
use crate::limits::Limits;
use crate::{archive, check};

/// How temporary folders begin; a digest's hexadecimal form never does.
const TEMP: &str = ".tmp-";

/// A package in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct UnpackedPackage {
    /// Its identity.
    pub digest: PackageDigest,
    /// Its folder.
    pub path: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
    /// Whether it was there already, so that nothing was read.
    pub reused: bool,
}

/// Unpacks an archive into `store_dir/<hex of the digest>`. If that is there already, `reader` is not
/// touched.
///
/// The content goes to a temporary folder in the store first. Only when everything has been read,
/// checked and found to have the expected digest is it made read-only, synced and renamed: a half
/// package is never seen, also not after a power cut. On error nothing stays behind; after a crash,
/// [`sweep`] removes what did.
///
/// For durability there is one `syncfs` of the store's file system instead of an `fsync` for each
/// file: one journal commit in place of thousands. Writing back begins while the archive is still
/// being read. `syncfs` reports write errors since Linux 5.8.
///
/// Errors: the archive is refused, its digest is not the expected one, or reading or writing fails.
pub fn unpack(
    reader: impl Read + Send,
    expected_digest: PackageDigest,
    store_dir: &Path,
    limits: Limits,
) -> Result<UnpackedPackage, UnpackError> {
    if let Some(found) = lookup(store_dir, expected_digest)? {
        return Ok(found);
    }
    fs::create_dir_all(store_dir)
        .map_err(PackageError::io(format!("make {}", store_dir.display())))?;
    let store = open(store_dir)?;
    let temp = Temp::new(store_dir, &store)?;
    let mut disk = Disk::new(temp.open(&store)?);
    let contents = archive::read(reader, limits, &mut disk)?;
    check::expect(expected_digest, contents.index.digest())?;
    disk.close()?;
    let syncing = format!("sync {}", store_dir.display());
    rustix::fs::syncfs(&store).map_err(PackageError::errno(syncing.as_str()))?;
    let reused = !temp.publish(&store, expected_digest)?;
    rustix::fs::fsync(&store).map_err(PackageError::errno(syncing))?;
    Ok(UnpackedPackage {
        digest: expected_digest,
        path: store_dir.join(expected_digest.hex()),
        manifest: contents.manifest,
        reused,
    })
}

/// The package of that digest, if it is in the store. Errors: it is there but its manifest cannot be
/// read; [`remove`] it and unpack again.
pub fn lookup(
    store_dir: &Path,
    digest: PackageDigest,
) -> Result<Option<UnpackedPackage>, PackageError> {
    let path = store_dir.join(digest.hex());
    let file = path.join(manifest::FILE_NAME);
    match fs::read(&file) {
        Ok(bytes) => {
            let manifest = check::manifest(&bytes)?;
            Ok(Some(UnpackedPackage {
                digest,
                path,
                manifest,
                reused: true,
            }))
        }
        Err(error) if error.kind() == ErrorKind::NotFound && !path.exists() => Ok(None),
        Err(error) => Err(PackageError::io(format!("read {}", file.display()))(error)),
    }
}

/// Removes a package from the store; whether it was there. It disappears at once, then its content
/// is removed.
pub fn remove(store_dir: &Path, digest: PackageDigest) -> Result<bool, PackageError> {
    match take_away(store_dir, digest)? {
        Some(taken) => taken.remove().map(|()| true),
        None => Ok(false),
    }
}

/// A package that is in the store no more, and whose content is still to be removed. What is left of it
/// after a crash, [`sweep`] removes.
#[derive(Debug)]
#[must_use = "its content is still there"]
pub struct TakenAway {
    path: PathBuf,
}

impl TakenAway {
    /// Removes the content.
    pub fn remove(self) -> Result<(), PackageError> {
        let doing = format!("remove {}", self.path.display());
        remove_tree(&self.path).map_err(PackageError::io(doing))
    }
}

/// Takes a package out of the store, at once and without needing room on the disk; none if it was not there.
pub fn take_away(
    store_dir: &Path,
    digest: PackageDigest,
) -> Result<Option<TakenAway>, PackageError> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let doing = || format!("remove {}", store_dir.join(digest.hex()).display());
    let store = match open(store_dir) {
        Err(PackageError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return Ok(None);
        }
        other => other?,
    };
    loop {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{TEMP}gone-{}-{number}", std::process::id());
        match rustix::fs::renameat(&store, digest.hex(), &store, &name) {
            Ok(()) => {
                let path = store_dir.join(name);
                return Ok(Some(TakenAway { path }));
            }
            Err(Errno::NOENT) => return Ok(None),
            // Left over by a process that had this one's number; the next is free.
            Err(Errno::NOTEMPTY | Errno::EXIST) => continue,
            Err(error) => return Err(PackageError::errno(doing())(error)),
        }
    }
}

/// Removes temporary folders that a crash left behind, but none that is in use; how many. Errors: the
/// first one, after every folder has been tried.
pub fn sweep(store_dir: &Path) -> Result<usize, PackageError> {
    let doing = || format!("sweep {}", store_dir.display());
    let entries = match fs::read_dir(store_dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        other => other.map_err(PackageError::io(doing()))?,
    };
    let store = open(store_dir)?;
    let (mut removed, mut failed) = (0, None);
    for entry in entries {
        let swept = entry.and_then(|entry| {
            let name = entry.file_name();
            let ours = name.to_str().is_some_and(|name| name.starts_with(TEMP));
            if !ours || in_use(&store, &name)? {
                return Ok(0);
            }
            remove_tree(&entry.path()).map(|()| 1)
        });
        match swept {
            Ok(count) => removed += count,
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    match failed {
        None => Ok(removed),
        Some(error) => Err(PackageError::io(doing())(error)),
    }
}

const FOLDER: OFlags = OFlags::DIRECTORY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

fn open(path: &Path) -> Result<OwnedFd, PackageError> {
    rustix::fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(PackageError::errno(format!("open {}", path.display())))
}

/// Whether a running unpack holds the folder's lock.
fn in_use(store: &OwnedFd, name: &std::ffi::OsStr) -> std::io::Result<bool> {
    let folder = match rustix::fs::openat(store, name, FOLDER, Mode::empty()) {
        Ok(folder) => folder,
        // Not a folder: nothing of a running unpack's.
        Err(Errno::NOTDIR | Errno::LOOP) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

fn remove_tree(path: &Path) -> std::io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        make_writable(path)?;
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

/// Only in folders that may be written to can something be removed.
fn make_writable(path: &Path) -> std::io::Result<()> {
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(())
}

/// A temporary folder, locked while it is in use and removed with all in it unless it is published.
struct Temp {
    path: PathBuf,
    name: String,
    lock: OwnedFd,
}

impl Temp {
    fn new(store_dir: &Path, store: &OwnedFd) -> Result<Self, PackageError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let doing = || format!("make a temporary folder in {}", store_dir.display());
        loop {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("{TEMP}{}-{number}", std::process::id());
            match rustix::fs::mkdirat(store, &name, Mode::from_raw_mode(0o700)) {
                // Left over by a process that had this one's number; the next is free.
                Err(Errno::EXIST) => continue,
                other => other.map_err(PackageError::errno(doing()))?,
            }
            let lock = rustix::fs::openat(store, &name, FOLDER, Mode::empty());
            let lock = match lock {
                // A sweep came between.
                Err(Errno::NOENT) => continue,
                other => other.map_err(PackageError::errno(doing()))?,
            };
            rustix::fs::flock(&lock, FlockOperation::LockExclusive)
                .map_err(PackageError::errno(doing()))?;
            let links = rustix::fs::fstat(&lock)
                .map_err(PackageError::errno(doing()))?
                .st_nlink;
            let path = store_dir.join(&name);
            // A sweep that was faster with the lock has removed the folder.
            if links > 0 && path.exists() {
                return Ok(Self { path, name, lock });
            }
        }
    }

    fn open(&self, store: &OwnedFd) -> Result<OwnedFd, PackageError> {
        rustix::fs::openat(store, &self.name, FOLDER, Mode::empty())
            .map_err(PackageError::errno(format!("open {}", self.path.display())))
    }

    /// Gives the folder its final name; false if another unpack was faster.
    fn publish(self, store: &OwnedFd, digest: PackageDigest) -> Result<bool, PackageError> {
        match rustix::fs::renameat(store, &self.name, store, digest.hex()) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(false),
            Err(error) => Err(PackageError::errno(format!(
                "rename {}",
                self.path.display()
            ))(error)),
        }
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        // Published, or a later sweep will try again.
        let _ = remove_tree(&self.path);
        let _ = rustix::fs::flock(&self.lock, FlockOperation::Unlock);
    }
}
