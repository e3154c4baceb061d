//! Starting processes: the one place that needs unsafe code, between fork and exec.
#![allow(
    unsafe_code,
    reason = "what a child does between fork and exec cannot be checked by the compiler"
)]

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use berth_shim::spec::{MARKER, MARKER_DIR, ProcessSpec};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{getppid, setsid};

use crate::confine::Child;

/// PATH where neither the spec nor the shim's own environment has one.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Closes whatever the launcher left open beyond standard error: an agent's lock or socket must not be
/// held open by what outlives it. To be called before anything is opened.
pub(crate) fn close_inherited() {
    // SAFETY: nothing in this process owns a descriptor beyond 2 yet.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) };
    if closed == 0 {
        return;
    }
    // Before Linux 5.9.
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let open: Vec<i32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|descriptor| *descriptor > 2)
        .collect();
    for descriptor in open {
        // SAFETY: as above; the listing's own descriptor is closed already, which is harmless.
        unsafe { libc::close(descriptor) };
    }
}

/// Starts a process in a session of its own, with exactly the spec's environment plus PATH and the
/// marker, and returns its pid. A command that cannot be executed is an error here, not an exit code.
pub(crate) fn spawn(
    process: &ProcessSpec,
    marker: &str,
    dir: &Path,
    (stdout, stderr): (OwnedFd, OwnedFd),
    mut confined: Child,
) -> io::Result<u32> {
    let (program, arguments) = process
        .argv
        .split_first()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no command"))?;
    let mut command = Command::new(program);
    let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    command
        .args(arguments)
        .env_clear()
        .env("PATH", path)
        .envs(&process.env)
        .env(MARKER, marker)
        .env(MARKER_DIR, dir)
        .current_dir(&process.cwd)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr);
    let shim = nix::unistd::getpid();
    let is_confined = confined.is_confined();
    // SAFETY: the closure runs in the forked child of a single-threaded process, where no lock can be held by a thread
    // that is not there any more; beside system calls it may allocate.
    unsafe {
        command.pre_exec(move || {
            setsid()?;
            confined.apply()?;
            if is_confined {
                leave_keyring();
            }
            // After that: a change of user takes it back.
            set_pdeathsig(Signal::SIGKILL)?;
            if getppid() != shim {
                // The shim died before the line above; nobody would kill this process any more.
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            default_signals();
            SigSet::empty().thread_set_mask()?;
            Ok(())
        });
    }
    // Dropping the handle neither waits nor kills: the supervisor reaps every child itself.
    Ok(command.spawn()?.id())
}

/// Leaves the session's keyring, whose keys are for whoever is in it: it may be that of an administrator who started the
/// agent. Where the kernel has none, there is nothing to leave.
fn leave_keyring() {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: without a name it makes a new keyring; it reads no memory of this process.
    unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, 0) };
}

/// Undoes whatever was ignored by the shim or by who launched it: exec keeps ignored signals ignored.
fn default_signals() {
    for signal in 1..=64 {
        // SAFETY: setting the default action is async-signal-safe; for signals that have no
        // settable action it fails and changes nothing.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}
