//! Writing a package's content below one folder, never through a link.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::archive::Sink;
use crate::error::PackageError;

/// A folder that nobody else writes to, being filled.
pub(crate) struct Disk {
    root: OwnedFd,
    /// The folder last written to: most entries follow one from the same folder.
    parent: Option<(String, OwnedFd)>,
    file: Option<(File, bool)>,
    folders: Vec<String>,
    writeback: Writeback,
}

impl Disk {
    pub(crate) fn new(root: OwnedFd) -> Self {
        Self {
            root,
            parent: None,
            file: None,
            folders: Vec::new(),
            writeback: Writeback::default(),
        }
    }

    /// Makes the folders read-only; the files are so already.
    pub(crate) fn close(self) -> Result<(), PackageError> {
        let mode = Mode::from_raw_mode(0o555);
        for path in &self.folders {
            let folder = self.open(path)?;
            rustix::fs::fchmod(&folder, mode).map_err(failed(path))?;
        }
        rustix::fs::fchmod(&self.root, mode).map_err(failed("the package"))
    }

    /// Opens a folder one component after the other, each of which must be a folder and no link.
    fn open(&self, path: &str) -> Result<OwnedFd, PackageError> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let mut at: Option<OwnedFd> = None;
        for part in path.split('/') {
            let above = at.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            let next =
                rustix::fs::openat(above, part, flags, Mode::empty()).map_err(failed(path))?;
            at = Some(next);
        }
        // A path always has a component.
        at.ok_or_else(|| failed(path)(rustix::io::Errno::NOENT))
    }

    /// Calls `make` with the entry's folder and name.
    fn make<T>(
        &mut self,
        path: &str,
        make: impl FnOnce(rustix::fd::BorrowedFd<'_>, &str) -> rustix::io::Result<T>,
    ) -> Result<T, PackageError> {
        let Some((parent, name)) = path.rsplit_once('/') else {
            return make(self.root.as_fd(), path).map_err(failed(path));
        };
        let known = self.parent.take().filter(|(known, _)| known == parent);
        let folder = match known {
            Some((_, folder)) => folder,
            None => self.open(parent)?,
        };
        let made = make(folder.as_fd(), name).map_err(failed(path));
        self.parent = Some((parent.to_owned(), folder));
        made
    }
}

fn failed(path: &str) -> impl FnOnce(rustix::io::Errno) -> PackageError {
    PackageError::errno(format!("write {path}"))
}

impl Sink for Disk {
    fn folder(&mut self, path: &str) -> Result<(), PackageError> {
        self.make(path, |folder, name| {
            rustix::fs::mkdirat(folder, name, Mode::from_raw_mode(0o700))
        })?;
        self.folders.push(path.to_owned());
        Ok(())
    }

    fn file(&mut self, path: &str, executable: bool, _: u64) -> Result<(), PackageError> {
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
        let file = self.make(path, |folder, name| {
            rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(0o600))
        })?;
        self.file = Some((File::from(file), executable));
        self.writeback.begin();
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), PackageError> {
        if let Some((file, _)) = &mut self.file {
            file.write_all(bytes)
                .map_err(PackageError::io("write a file of the package"))?;
            self.writeback.wrote(file, bytes.len() as u64);
        }
        Ok(())
    }

    fn end_file(&mut self) -> Result<(), PackageError> {
        if let Some((file, executable)) = self.file.take() {
            let mode = Mode::from_raw_mode(if executable { 0o555 } else { 0o444 });
            rustix::fs::fchmod(&file, mode).map_err(failed("a file of the package"))?;
        }
        Ok(())
    }

    fn link(&mut self, path: &str, target: &str) -> Result<(), PackageError> {
        self.make(path, |folder, name| {
            rustix::fs::symlinkat(target, folder, name)
        })
    }
}

/// Starts writing to the disk while the archive is still being read, so that the final sync finds
/// little left to do.
#[derive(Default)]
struct Writeback {
    offset: u64,
    started: u64,
}

/// Bytes after which the disk gets to work.
const WRITEBACK_BYTES: u64 = 8 << 20;

impl Writeback {
    fn begin(&mut self) {
        *self = Self::default();
    }

    fn wrote(&mut self, file: &File, bytes: u64) {
        self.offset += bytes;
        let waiting = self.offset - self.started;
        if waiting >= WRITEBACK_BYTES {
            // "Not needed" makes Linux start writing the range back, and keeps what is still dirty in
            // the cache. Only a hint: durability comes from the sync at the end.
            let length = std::num::NonZeroU64::new(waiting);
            let advice = rustix::fs::Advice::DontNeed;
            let _ = rustix::fs::fadvise(file, self.started, length, advice);
            self.started = self.offset;
        }
    }
}
