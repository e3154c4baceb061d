//! The owner's side.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::claim::Claim;
use crate::error::HandoverError;
use crate::link::{Link, Listener, Message, VERSIONS, listen, unexpected, within};

/// For a process to say what it wants, once it has connected.
const FIRST: Duration = Duration::from_secs(5);
/// For the sockets to be sent.
const GIVING: Duration = Duration::from_secs(10);
/// Between attempts to accept, when that fails.
const AGAIN: Duration = Duration::from_millis(100);

/// A listening socket on offer.
#[derive(Debug)]
pub struct Socket {
    /// What it is for.
    pub name: String,
    /// The address by which it was configured, port 0 as such.
    pub address: String,
    /// The socket.
    pub socket: OwnedFd,
}

/// What a serving process offers. Dropping it without [`Self::confirm`] takes the offer back and gives
/// the lock up.
pub struct Offer {
    claim: Option<Claim>,
    listener: Option<Listener>,
    path: PathBuf,
    program: String,
    sockets: Vec<Socket>,
}

impl Offer {
    pub(crate) fn open(
        claim: Claim,
        program: &str,
        sockets: Vec<Socket>,
    ) -> Result<Self, HandoverError> {
        let path = claim.path.clone();
        let listener = listen(&path).map_err(|source| HandoverError::File {
            what: "listen at",
            path: path.clone(),
            source,
        })?;
        Ok(Self {
            claim: Some(claim),
            listener: Some(listener),
            path,
            program: program.to_owned(),
            sockets,
        })
    }

    /// Waits for a process that wants to take over. May be dropped and called again.
    pub async fn next(&self) -> Candidate<'_> {
        loop {
            let Some(listener) = &self.listener else {
                return std::future::pending().await;
            };
            let link = match listener.accept().await {
                Ok(link) => link,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a process that wants to take over");
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            };
            match within(FIRST, "say what it wants", self.hear(link)).await {
                Ok(Some(candidate)) => return candidate,
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "a process that came to take over was turned away");
                }
            }
        }
    }

    /// Answers a question; or makes a candidate of who wants to take over.
    async fn hear(&self, link: Link) -> Result<Option<Candidate<'_>>, HandoverError> {
        if let Err(error) = link.check_peer() {
            link.refuse(&error.to_string());
            return Err(error);
        }
        let (versions, pid, program, state) = match link.receive().await?.0 {
            Message::Ask => {
                let me = Message::Owner {
                    pid: std::process::id(),
                    program: self.program.clone(),
                };
                link.send(&me, None).await?;
                return Ok(None);
            }
            Message::Take {
                versions,
                pid,
                program,
                state,
            } => (versions, pid, program, state),
            message => {
                link.refuse("the first message must be ask or take");
                return Err(unexpected(&message));
            }
        };
        let common = VERSIONS.into_iter().rev().find(|v| versions.contains(v));
        let Some(version) = common else {
            let why = format!("it speaks the versions {VERSIONS:?}, not {versions:?}");
            link.refuse(&why);
            return Err(HandoverError::Protocol(why));
        };
        Ok(Some(Candidate {
            offer: self,
            link: Given(Some(link)),
            version,
            pid,
            program,
            state,
        }))
    }

    /// Lets go: after this the other process serves, and this one must accept no more and finish what is
    /// under way. Errors: the other one has died, and this one goes on; the offer stands.
    pub async fn confirm(&mut self, mut ready: Ready) -> Result<(), HandoverError> {
        ready.link.link()?.send(&Message::Yours, None).await?;
        ready.link.0 = None;
        // In this order: whoever finds nobody listening tries the lock, which the new owner holds.
        self.listener = None;
        self.claim = None;
        self.sockets.clear();
        Ok(())
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        if self.claim.is_some()
            && let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(%error, path = %self.path.display(), "a socket's file stays");
        }
    }
}

/// A connection over which something was given. However it ends while this process lives, the other one is
/// told: a connection that breaks off without a word means that the owner has died.
struct Given(Option<Link>);

impl Given {
    fn refuse(&mut self, why: &str) {
        if let Some(link) = self.0.take() {
            link.refuse(why);
        }
    }

    fn link(&self) -> Result<&Link, HandoverError> {
        self.0.as_ref().ok_or(HandoverError::Gone)
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        self.refuse("the owner goes on");
    }
}

/// A process that wants to take over; it has nothing yet. Dropping it refuses.
pub struct Candidate<'a> {
    offer: &'a Offer,
    link: Given,
    version: u32,
    pid: u32,
    program: String,
    state: Value,
}

impl Candidate<'_> {
    /// Its process id, as it says.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its name and version.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// What it says of itself; the default where that cannot be read, as from another version.
    pub fn state<T: DeserializeOwned + Default>(&self) -> T {
        serde_json::from_value(self.state.clone()).unwrap_or_default()
    }

    /// Gives it everything, with what it shall know of this process, and waits up to `patience` until it
    /// is ready. Errors: it has died or took too long, and was refused if it still lives; this process
    /// goes on.
    pub async fn give(
        mut self,
        state: &impl Serialize,
        patience: Duration,
    ) -> Result<Ready, HandoverError> {
        let done = async {
            let state =
                serde_json::to_value(state).map_err(|e| HandoverError::Protocol(e.to_string()))?;
            within(GIVING, "take the sockets", self.send(state)).await?;
            within(patience, "get ready", self.link.link()?.receive()).await
        };
        match done.await {
            Ok((Message::Ready { state }, _)) => Ok(Ready {
                link: self.link,
                state,
            }),
            Ok((message, _)) => {
                self.link.refuse("only ready may follow");
                Err(unexpected(&message))
            }
            Err(error) => {
                self.link.refuse(&error.to_string());
                Err(error)
            }
        }
    }

    async fn send(&self, state: Value) -> Result<(), HandoverError> {
        let offer = self.offer;
        let give = Message::Give {
            version: self.version,
            pid: std::process::id(),
            program: offer.program.clone(),
            state,
        };
        let link = self.link.link()?;
        link.send(&give, None).await?;
        if let Some(claim) = &offer.claim {
            link.send(&Message::Lock, Some(claim.lock.as_fd())).await?;
        }
        for socket in &offer.sockets {
            let message = Message::Socket {
                name: socket.name.clone(),
                address: socket.address.clone(),
            };
            link.send(&message, Some(socket.socket.as_fd())).await?;
        }
        link.send(&Message::All, None).await
    }

    /// Sends it away; this process goes on.
    pub fn refuse(mut self, why: &str) {
        self.link.refuse(why);
    }
}

/// A process that accepts connections on the sockets it got.
///
/// Dropping it sends it away.
pub struct Ready {
    link: Given,
    state: Value,
}

impl Ready {
    /// What it says of itself now; the default where that cannot be read.
    pub fn state<T: DeserializeOwned + Default>(&self) -> T {
        serde_json::from_value(self.state.clone()).unwrap_or_default()
    }

    /// Sends it away after all; this process goes on.
    pub fn refuse(mut self, why: &str) {
        self.link.refuse(why);
    }
}
