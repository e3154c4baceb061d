//! Ports for clusters that run side by side: a slice of the range below the kernel's ephemeral ports,
//! held by a file lock for as long as the test runs.

use std::fs::{File, OpenOptions};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

const FIRST: u16 = 22_000;
const SLICES: u16 = 50;
const SIZE: u16 = 200;

/// A slice of ports that no other test process uses.
pub struct PortSlice {
    base: u16,
    _lock: Flock<File>,
}

impl PortSlice {
    /// Takes a free slice.
    pub fn take() -> Result<Self> {
        let dir = std::env::temp_dir().join("berth-test-ports");
        std::fs::create_dir_all(&dir).context("cannot make the folder of port locks")?;
        for n in 0..SLICES {
            let path = dir.join(format!("slice-{n}"));
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)?;
            if let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                return Ok(Self {
                    base: FIRST + n * SIZE,
                    _lock: lock,
                });
            }
        }
        bail!("all {SLICES} slices of test ports are taken")
    }

    /// First and last port of the `node`-th node (from 0).
    pub fn of_node(&self, node: usize) -> (u16, u16) {
        let size = 20;
        let first = self.base + u16::try_from(node).unwrap_or(u16::MAX) * size;
        (first, first + size - 1)
    }

    /// The `n`-th port (from 0, below 20) for daemons, so that a restarted one is found again.
    pub fn of_daemon(&self, n: u16) -> u16 {
        self.base + SIZE - 20 + n
    }
}
