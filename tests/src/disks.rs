//! Disks that are small enough to be filled.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::outside::output_of;

/// File systems of the test's own, unmounted at the end.
pub(crate) struct SmallDisks(Vec<PathBuf>);

impl SmallDisks {
    /// Mounts one of `bytes` for each process that has a folder of its own; none: nothing.
    pub(crate) fn mount(home: &Path, bytes: Option<u64>) -> Result<Self> {
        let mut disks = Self(Vec::new());
        for name in bytes.map_or(&[][..], |_| &["coordinator", "gateway"]) {
            let size = format!("size={},mode=0700", bytes.unwrap_or_default());
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]);
            output_of(mount.arg(home.join(name)))?;
            disks.0.push(home.join(name));
        }
        Ok(disks)
    }
}

impl Drop for SmallDisks {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = Command::new("umount").arg("-l").arg(path).status();
        }
    }
}
