//! Waiting for the end of a start without a thread of its own.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{Children, adopt, is_running, reap};
use crate::runtime::{Adopted, EndReason, EndState, Handle, RuntimeError};

/// How often it is looked where the kernel does not tell.
const POLL: Duration = Duration::from_millis(200);

/// See [`crate::runtime::Runtime::ended`].
pub(super) async fn ended(handle: Handle, children: Children) -> EndState {
    gone(&handle).await;
    let again = (handle.clone(), children.clone());
    match tokio::task::spawn_blocking(move || end(&handle, &children)).await {
        Ok(end) => end,
        // The tokio runtime is shutting down; nobody is served by waiting.
        Err(_) => end(&again.0, &again.1),
    }
}

/// Resolves when the shim is gone.
pub(in crate::runtime) async fn gone(handle: &Handle) {
    if wait(handle).await.is_err() {
        // No pidfd (Linux before 5.3, or no descriptor left).
        while is_running(handle).unwrap_or(true) {
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Waits until the shim is gone.
async fn wait(handle: &Handle) -> io::Result<()> {
    let pid = i32::try_from(handle.supervisor.pid)
        .ok()
        .and_then(Pid::from_raw);
    let Some(pid) = pid else { return Ok(()) };
    let descriptor: OwnedFd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(descriptor) => descriptor,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    // Whoever has the pid now is pinned: it is either the shim, or the shim is gone.
    if !is_running(handle)? {
        return Ok(());
    }
    #[expect(
        deprecated,
        reason = "sound for an OwnedFd, and its successor needs unsafe code"
    )]
    let descriptor = AsyncFd::with_interest(descriptor, Interest::READABLE)?;
    descriptor.readable().await.map(|_| ())
}

/// How a start ended whose shim is gone.
fn end(handle: &Handle, children: &Children) -> EndState {
    reap(children);
    found(adopt::lost(&adopt::Plain, &handle.dir), handle)
}

/// The end of a start, as it was found.
pub(in crate::runtime) fn found(lost: Result<Adopted, RuntimeError>, handle: &Handle) -> EndState {
    match lost {
        Ok(Adopted::Ended(end) | Adopted::Lost(end)) => end,
        // Its folder or its state is gone too: there is no more to know than this.
        Ok(Adopted::Running(_) | Adopted::Nothing) | Err(_) => {
            let marked = super::leftovers::kill_marked(&handle.instance, handle.start, &handle.dir);
            if let Err(error) = marked {
                tracing::error!(instance = handle.instance, %error, "leftovers cannot be killed");
            }
            EndState {
                reason: EndReason::SupervisorLost,
                stop_requested: false,
                processes: Vec::new(),
                started_at_ms: 0,
                ended_at_ms: None,
                stderr_tail: None,
            }
        }
    }
}
