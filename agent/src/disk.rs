//! Room on the disk of the agent's data.

use std::path::Path;

/// What a file system has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Room {
    /// Bytes in all.
    pub(crate) total: u64,
    /// Bytes that the agent can still have.
    pub(crate) free: u64,
    /// How many files there can be in all; zero where there is no limit.
    pub(crate) files: u64,
    /// How many more files there can be.
    pub(crate) free_files: u64,
}

impl Room {
    /// Of the file system on which a path lies; none where the system does not tell.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let stat = rustix::fs::statvfs(path).ok()?;
        Some(Self {
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            files: stat.f_files,
            free_files: stat.f_favail,
        })
    }
}
