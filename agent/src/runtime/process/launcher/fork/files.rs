//! What of the file system a start may use, by Landlock.

use std::path::PathBuf;

use berth_shim::sandbox::Files;

use super::super::Ground;
use crate::runtime::Confinement;

/// What instances of an agent that is root have no business with, as far as its user does not keep them out already.
const PRIVATE: [&str; 5] = [
    "/root",
    "/home",
    "/run/user",
    "/etc/berth",
    "/var/lib/berth",
];

/// What everybody may write.
const SHARED: [&str; 5] = ["/dev", "/proc", "/tmp", "/var/tmp", "/run/lock"];

/// Whether the kernel has Landlock.
pub(super) fn supported() -> bool {
    berth_shim::sandbox::has_landlock()
}

/// The files of a start: everything but what is hidden may be read, and nothing but its own and the shared folders be
/// written.
pub(super) fn files(ground: &Ground, wanted: &Confinement) -> Files {
    let paths = |names: &[&str]| -> Vec<PathBuf> { names.iter().map(PathBuf::from).collect() };
    let mut hidden = vec![ground.data.clone()];
    hidden.extend(ground.hidden.clone());
    if rustix::process::geteuid().is_root() {
        hidden.extend(paths(&PRIVATE));
    }
    let mut read = vec![PathBuf::from("/")];
    read.extend(wanted.readable.iter().chain(&ground.readable).cloned());
    let mut write = paths(&SHARED);
    write.extend(wanted.writable.clone());
    Files {
        read,
        write,
        hidden,
    }
}
