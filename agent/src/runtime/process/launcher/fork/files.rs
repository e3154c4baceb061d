//! What of the file system a start may use, by Landlock.

use std::path::{Path, PathBuf};

use berth_shim::sandbox::Files;

use super::super::{Ground, gpu_devices};
use crate::runtime::Confinement;

/// What instances have no business with, as far as their user does not keep them out already.
const PRIVATE: [&str; 9] = [
    "/root",
    "/home",
    "/run/user",
    "/etc/berth",
    "/var/lib/berth",
    "/etc/shadow",
    "/etc/gshadow",
    "/etc/ssh",
    "/etc/ssl/private",
];

/// What everybody may write.
const SHARED: [&str; 3] = ["/tmp", "/var/tmp", "/run/lock"];

/// What everybody may write whose rights are those of its user.
const BY_USER: [&str; 2] = ["/dev", "/proc"];

/// What root may use of the devices: all others, and the kernel's settings in /proc, are root's by their owner.
const HARMLESS: [&str; 9] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/ptmx",
    "/dev/pts",
    "/dev/shm",
];

/// Whether the kernel has Landlock.
pub(super) fn supported() -> bool {
    berth_shim::sandbox::has_landlock()
}

/// The files of a start: everything but what is hidden may be read, and nothing but its own and the shared folders be
/// written. `root`: it runs as root.
pub(super) fn files(ground: &Ground, wanted: &Confinement, root: bool) -> Files {
    let paths = |names: &[&str]| -> Vec<PathBuf> { names.iter().map(PathBuf::from).collect() };
    let mut hidden = vec![ground.data.clone()];
    hidden.extend(ground.hidden.clone());
    hidden.extend(paths(&PRIVATE));
    let mut read = vec![PathBuf::from("/")];
    read.extend(wanted.readable.iter().chain(&ground.readable).cloned());
    let mut write = paths(&SHARED);
    if root {
        hidden.push("/dev".into());
        write.extend(paths(&HARMLESS));
        if wanted.resources.gpus > 0 {
            write.extend(gpu_devices(Path::new("/dev")));
        }
    } else {
        write.extend(paths(&BY_USER));
    }
    write.extend(wanted.writable.clone());
    // A link to a hidden folder does not hide it.
    let real = |path: PathBuf| path.canonicalize().unwrap_or(path);
    Files {
        read,
        write,
        hidden: hidden.into_iter().map(real).collect(),
    }
}
