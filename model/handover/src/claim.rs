//! The lock that makes one process the owner, and the names beside it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::error::HandoverError;
use crate::offer::{Offer, Socket};

/// The right to serve at a meeting place: the lock on its file.
#[derive(Debug)]
pub struct Claim {
    pub(crate) path: PathBuf,
    pub(crate) lock: OwnedFd,
}

impl Claim {
    /// Takes the lock if nobody holds it.
    pub(crate) fn take(path: &Path) -> Result<Option<Self>, HandoverError> {
        let file = open(path).map_err(|source| HandoverError::File {
            what: "open",
            path: lock_file(path),
            source,
        })?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self {
                path: path.to_owned(),
                lock: file.into(),
            })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(HandoverError::File {
                what: "lock",
                path: lock_file(path),
                source: error.into(),
            }),
        }
    }

    /// Offers what this process listens on to whoever comes to replace it. `program` is a name and a
    /// version, for people. Needs a tokio runtime.
    pub fn offer(self, program: &str, sockets: Vec<Socket>) -> Result<Offer, HandoverError> {
        Offer::open(self, program, sockets)
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(lock_file(path))
}

/// The lock's file. It is never removed: two processes must not lock two files of one name.
pub(crate) fn lock_file(path: &Path) -> PathBuf {
    beside(path, ".lock")
}

pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
