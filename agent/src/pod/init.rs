//! The first process of a container: it passes signals on to the agent and takes in whatever ends unattended.
//!
//! A process of its own, and a plain one: the agent waits for its shim as a parent does, and must not have that
//! child taken away by somebody who waits for all.

use std::process::Command;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::PodError;

/// Signals that are the agent's.
const PASSED: [Signal; 5] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Whether this is the first process of its container.
pub fn is_init() -> bool {
    std::process::id() == 1
}

/// Runs this very program again, with the same arguments, and ends as it does.
pub fn as_init() -> Result<u8, PodError> {
    let failed = |what| move |source| PodError::System { what, source };
    let mut mask: SigSet = PASSED.into_iter().collect();
    mask.add(Signal::SIGCHLD);
    mask.thread_block()
        .map_err(|error| failed("block signals")(error.into()))?;
    let program = std::env::current_exe().map_err(failed("find this program"))?;
    let child = Command::new(program)
        .args(std::env::args_os().skip(1))
        .spawn()
        .map_err(failed("run this program again"))?;
    let agent = i32::try_from(child.id()).map_or(Pid::from_raw(i32::MAX), Pid::from_raw);
    loop {
        let signal = mask
            .wait()
            .map_err(|error| failed("wait for signals")(error.into()))?;
        if signal != Signal::SIGCHLD {
            // It may just have ended: then that is heard next.
            let _ = kill(agent, signal);
            continue;
        }
        if let Some(code) =
            reap(agent).map_err(|error| failed("wait for a process")(error.into()))?
        {
            return Ok(code);
        }
    }
}

/// Takes in everything that has ended; tells the agent's exit code if it is among it.
fn reap(agent: Pid) -> Result<Option<u8>, Errno> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == agent => {
                code = Some(u8::try_from(status & 0xff).unwrap_or(1));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == agent => {
                code = Some(u8::try_from(128 + signal as i32).unwrap_or(1));
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(code),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Hears signals again that the first process has blocked for itself: what it runs inherits that.
pub fn hear_signals() -> Result<(), PodError> {
    let unblocked = SigSet::all().thread_unblock();
    unblocked.map_err(|error| PodError::System {
        what: "unblock signals",
        source: error.into(),
    })
}
