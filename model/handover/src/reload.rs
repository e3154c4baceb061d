//! Starting a program anew beside the one that runs.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use crate::error::HandoverError;
use crate::link::{Link, Message, unexpected, within};

/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(50);
/// For an answer; the owner may be busy with a take-over.
const ANSWER: Duration = Duration::from_millis(500);

/// Who serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its process id, as it says.
    pub pid: u32,
    /// Its name and version.
    pub program: String,
}

/// Asks who serves at `path`. Errors: nobody, or it gives no answer now.
pub async fn owner(path: &Path) -> Result<Owner, HandoverError> {
    let link = Link::connect(path).map_err(|_| HandoverError::Nobody {
        path: path.to_owned(),
    })?;
    link.check_peer()?;
    let talk = async {
        link.send(&Message::Ask, None).await?;
        link.receive().await
    };
    match within(ANSWER, "answer", talk).await?.0 {
        Message::Owner { pid, program } => Ok(Owner { pid, program }),
        message => Err(unexpected(&message)),
    }
}

/// Starts `command` in a process group of its own and returns its process id once it serves at `path`;
/// it outlives this process. Errors: nobody serves there, or the new process ended or was not ready
/// within `patience` and was told to end; the old one goes on.
pub async fn reload(
    path: &Path,
    mut command: Command,
    patience: Duration,
) -> Result<u32, HandoverError> {
    match owner(path).await {
        Ok(_) | Err(HandoverError::TooLong(_)) => {}
        Err(error) => return Err(error),
    }
    let mut child = command
        .process_group(0)
        .env(berth_notify::STARTED_BY, std::process::id().to_string())
        .spawn()
        .map_err(|source| HandoverError::File {
            what: "start",
            path: command.get_program().into(),
            source,
        })?;
    let pid = child.id();
    let until = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().map_err(HandoverError::Link)? {
            return Err(HandoverError::Ended(status));
        }
        if owner(path).await.is_ok_and(|owner| owner.pid == pid) {
            return Ok(pid);
        }
        if Instant::now() >= until {
            end(&child);
            return Err(HandoverError::TooLong("take over"));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn end(child: &Child) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(Err(error)) = pid.map(|pid| kill_process(pid, Signal::TERM)) {
        tracing::debug!(%error, "the new process cannot be told to end");
    }
}
