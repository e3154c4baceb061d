//! A full disk: lines become a gap, and the state is still written.

use std::fs;
use std::process::Command;

use berth_shim::state::Status;

use crate::harness::{Start, first, script, spec};

/// A file system of its own, unmounted at the end.
struct Small(tempfile::TempDir);

impl Small {
    /// None where mounting is not allowed.
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
            .arg(dir.path())
            .stderr(std::process::Stdio::null())
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then_some(Self(dir))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn needs_root_a_full_disk_is_a_gap_and_the_end_is_told() {
    let Some(disk) = Small::new() else {
        berth_skipped::skip("small-disk", "a file system cannot be mounted here");
        return;
    };
    let dir = disk.0.path();
    let go = tempfile::NamedTempFile::new().unwrap();
    let body = format!(
        "seq 1 30000; echo full >&2; while [ -e {} ]; do sleep 0.01; done; echo after; exit 6",
        go.path().display()
    );
    let mut start = Start::at(dir, &spec(vec![script("module", &body)]));
    crate::harness::until("a full disk", || {
        let full = fs::write(dir.join("filler"), [0; 4096]).is_err();
        // Only what the shim has filled up counts.
        let _ = fs::remove_file(dir.join("filler"));
        full.then_some(())
    });
    drop(go);
    let state = start.ended();
    assert_eq!(*first(&state), Status::Exited { code: 6 });
    let log = start.log();
    assert!(log.dropped > 0);
    assert_eq!(log.lines.len() as u64 + log.dropped, 30_002);
}
