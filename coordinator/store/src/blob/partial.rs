//! One upload on disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{BlobError, Digest};

/// An upload's file, and where it stands. Whoever changes it holds its lock.
#[derive(Debug)]
pub(super) struct Partial {
    path: PathBuf,
    /// Open for appending, once it is needed.
    file: Option<File>,
    /// Length of the file; true while `file` is there.
    length: u64,
    /// The part of it that is known to be on disk.
    durable: u64,
    /// Whose turn to write it is: the last who began.
    turn: u64,
}

impl Partial {
    /// The upload at a path. Does no I/O.
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            length: 0,
            durable: 0,
            turn: 0,
        }
    }

    /// Where its file is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes durable what is there, and tells the length: the offset that may be acknowledged.
    pub(super) fn stand(&mut self) -> Result<u64, BlobError> {
        if self.file.is_none() && !self.open(false)? {
            return Ok(0);
        }
        if let Some(file) = &self.file
            && self.durable < self.length
        {
            let synced = file.sync_all();
            if let Err(error) = synced {
                return Err(self.unsure("sync", error));
            }
            self.durable = self.length;
        }
        Ok(self.durable)
    }

    /// Opens the file, if it is there or `make`: tells whether.
    fn open(&mut self, make: bool) -> Result<bool, BlobError> {
        let opened = OpenOptions::new()
            .append(true)
            .create(make)
            .mode(0o600)
            .open(&self.path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !make => return Ok(false),
            Err(error) => return Err(BlobError::io("open", &self.path)(error)),
        };
        let length = file
            .metadata()
            .map_err(BlobError::io("look at", &self.path))?
            .len();
        if make && length == 0 {
            // The name must be as durable as what is acknowledged under it.
            super::sync_dir(self.path.parent().unwrap_or(Path::new(".")))?;
        }
        self.file = Some(file);
        self.length = length;
        self.durable = 0;
        Ok(true)
    }

    /// Gives the turn to a new writer, at the offset where the upload stands.
    pub(super) fn begin(&mut self, offset: u64) -> Result<u64, BlobError> {
        let expected = self.stand()?;
        if offset != expected {
            return Err(BlobError::WrongOffset { offset, expected });
        }
        if self.file.is_none() {
            self.open(true)?;
        }
        self.turn += 1;
        Ok(self.turn)
    }

    /// Writes what the writer of that turn has.
    pub(super) fn write(&mut self, turn: u64, bytes: &[u8]) -> Result<(), BlobError> {
        if turn != self.turn {
            return Err(BlobError::Superseded);
        }
        let Some(file) = &mut self.file else {
            return Err(BlobError::Superseded);
        };
        if let Err(error) = file.write_all(bytes) {
            return Err(self.unsure("write", error));
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// After a failure: cuts back to what is known to be on disk, and ends the turn. After a failed
    /// sync, what was not synced must not be believed even if a later sync succeeds.
    fn unsure(&mut self, what: &'static str, error: io::Error) -> BlobError {
        self.turn += 1;
        if let Some(file) = self.file.take()
            && let Err(error) = file.set_len(self.durable)
        {
            tracing::warn!(%error, path = %self.path.display(), "an upload could not be cut back");
        }
        BlobError::io(what, &self.path)(error)
    }

    /// Checks that the upload is the blob of that digest and size, and syncs it. If it is another's, throws
    /// it away.
    pub(super) fn verify(&mut self, digest: &Digest, size: u64) -> Result<(), BlobError> {
        let offset = self.stand()?;
        if self.file.is_none() && size == 0 {
            self.open(true)?;
        }
        if offset < size || self.file.is_none() {
            return Err(BlobError::Incomplete { offset, size });
        }
        let mut hasher = blake3::Hasher::new();
        let read = File::open(&self.path).and_then(|file| hasher.update_reader(file).map(drop));
        read.map_err(BlobError::io("read", &self.path))?;
        if offset != size || hasher.finalize().as_bytes() != digest {
            self.discard()?;
            return Err(BlobError::WrongContent {
                digest: hex::encode(digest),
                size: offset,
            });
        }
        Ok(())
    }

    /// The file has a new name: an upload from now on is another.
    pub(super) fn forget(&mut self) {
        self.file = None;
        self.turn += 1;
    }

    /// Throws the upload away.
    pub(super) fn discard(&mut self) -> Result<(), BlobError> {
        self.forget();
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(BlobError::io("remove", &self.path)(error))
            }
            _ => Ok(()),
        }
    }
}
