//! The new process' side.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use crate::claim::{Claim, lock_file};
use crate::error::HandoverError;
use crate::link::{Link, Message, VERSIONS, unexpected, within};

/// Between two attempts to find out who serves.
const AGAIN: Duration = Duration::from_millis(20);
/// For the owner to send what it offers, once it has begun.
const GIVING: Duration = Duration::from_secs(10);
/// For the owner to finish what it must before it lets go.
const YOURS: Duration = Duration::from_secs(60);

/// How a process comes to serve.
pub enum Entrance {
    /// Nobody serves here.
    First(Claim),
    /// Somebody does, and offers its sockets.
    Takeover(Taking),
}

/// Finds out whether somebody serves at `path` (its folder must be there), and if so asks for its
/// sockets. `program` is a name and a version, for people; `state` is what the owner shall know of this
/// process. Tries for `patience`, because another process may be taking over right now.
///
/// Errors: the owner refuses or cannot be talked to; the files cannot be used. Then this process must not
/// serve.
pub async fn enter(
    path: &Path,
    program: &str,
    state: &impl Serialize,
    patience: Duration,
) -> Result<Entrance, HandoverError> {
    let state = serde_json::to_value(state).map_err(|e| HandoverError::Protocol(e.to_string()))?;
    let until = Instant::now() + patience;
    let mut why;
    loop {
        if let Some(claim) = Claim::take(path)? {
            return Ok(Entrance::First(claim));
        }
        match take(path, program, &state, until).await {
            Ok(taking) => return Ok(Entrance::Takeover(taking)),
            // Neither has the lock changed hands for good, nor is the owner there to be talked to.
            Err(error @ (HandoverError::File { .. } | HandoverError::Gone)) => {
                why = chain(&error);
            }
            Err(HandoverError::TooLong(what)) => {
                why = format!("it took too long to {what}");
            }
            Err(error) => return Err(error),
        }
        if Instant::now() >= until {
            let path = lock_file(path);
            return Err(HandoverError::Held { path, why });
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

async fn take(
    path: &Path,
    program: &str,
    state: &Value,
    until: Instant,
) -> Result<Taking, HandoverError> {
    let link = Link::connect(path).map_err(|source| HandoverError::File {
        what: "connect to",
        path: path.to_owned(),
        source,
    })?;
    link.check_peer()?;
    let wanted = Message::Take {
        versions: VERSIONS.to_vec(),
        pid: std::process::id(),
        program: program.to_owned(),
        state: state.clone(),
    };
    let left = until.saturating_duration_since(Instant::now());
    within(left.max(AGAIN), "answer", link.send(&wanted, None)).await?;
    // It may be busy with another one.
    let (answer, _) = within(left.max(AGAIN), "answer", link.receive()).await?;
    let Message::Give {
        pid,
        program,
        state,
        version,
    } = answer
    else {
        return Err(unexpected(&answer));
    };
    if !VERSIONS.contains(&version) {
        let other = format!("version {version} was not on offer");
        return Err(HandoverError::Protocol(other));
    }
    let (lock, sockets) = within(GIVING, "hand its sockets over", receive(&link)).await?;
    Ok(Taking {
        link,
        claim: Claim {
            path: path.to_owned(),
            lock,
        },
        pid,
        program,
        state,
        sockets,
    })
}

/// The lock, and the sockets with their names and addresses.
type Given = (OwnedFd, Vec<(String, String, OwnedFd)>);

async fn receive(link: &Link) -> Result<Given, HandoverError> {
    let mut lock = None;
    let mut sockets = Vec::new();
    loop {
        match link.receive().await? {
            (Message::Lock, Some(descriptor)) => lock = Some(descriptor),
            (Message::Socket { name, address }, Some(descriptor)) => {
                sockets.push((name, address, descriptor));
            }
            (Message::All, _) => break,
            (message, _) => return Err(unexpected(&message)),
        }
    }
    let lock = lock.ok_or_else(|| HandoverError::Protocol("no lock came".to_owned()))?;
    Ok((lock, sockets))
}

/// A take-over under way: this process has everything and prepares, the owner still serves.
///
/// Dropping it gives up; the owner goes on.
pub struct Taking {
    link: Link,
    claim: Claim,
    pid: u32,
    program: String,
    state: Value,
    sockets: Vec<(String, String, OwnedFd)>,
}

impl Taking {
    /// The owner's process id, as it says.
    pub fn owner(&self) -> u32 {
        self.pid
    }

    /// The owner's name and version.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// What the owner says of itself; the default where it cannot be read, as from another version.
    pub fn state<T: DeserializeOwned + Default>(&self) -> T {
        serde_json::from_value(self.state.clone()).unwrap_or_default()
    }

    /// Takes the sockets of that name which are configured by that address. What is not taken is closed
    /// when this is dropped or handed in.
    pub fn sockets(&mut self, name: &str, address: &str) -> Vec<OwnedFd> {
        let (wanted, others) = std::mem::take(&mut self.sockets)
            .into_iter()
            .partition(|(n, a, _)| n == name && a == address);
        self.sockets = others;
        let wanted: Vec<(String, String, OwnedFd)> = wanted;
        wanted.into_iter().map(|(_, _, socket)| socket).collect()
    }

    /// Says that this process accepts connections, with what the owner shall know, and waits until the
    /// owner has let go, or has died. From then on this process is the owner.
    ///
    /// Errors: the owner does not want any more, because it took too long, and goes on serving: this
    /// process must stop.
    pub async fn ready(self, state: &impl Serialize) -> Result<Claim, HandoverError> {
        let state =
            serde_json::to_value(state).map_err(|e| HandoverError::Protocol(e.to_string()))?;
        let talk = async {
            // An owner that does not want any more has closed the connection, but said so before.
            let sent = self.link.send(&Message::Ready { state }, None).await;
            if !matches!(sent, Ok(()) | Err(HandoverError::Gone)) {
                return sent;
            }
            match self.link.receive().await? {
                (Message::Yours, _) => Ok(()),
                (message, _) => Err(unexpected(&message)),
            }
        };
        match within(YOURS, "let go", talk).await {
            Ok(()) => {}
            // An owner that goes on always says so. This one died, and the lock is held here, too.
            Err(HandoverError::Gone) => {
                tracing::warn!(owner = self.pid, "the process to take over from has died");
            }
            Err(error) => return Err(error),
        }
        Ok(self.claim)
    }
}
