//! One connection between two processes: messages of JSON, each with at most one descriptor.

use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};

use crate::error::HandoverError;

/// The protocol's versions that this build speaks.
pub(crate) const VERSIONS: [u32; 1] = [1];
/// Largest message.
const MAX_MESSAGE: usize = 64 << 10;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Message {
    /// Who serves?
    Ask,
    /// I do.
    Owner { pid: u32, program: String },
    /// I want to replace you.
    Take {
        versions: Vec<u32>,
        pid: u32,
        program: String,
        state: Value,
    },
    /// You may try; what you need follows.
    Give {
        version: u32,
        pid: u32,
        program: String,
        state: Value,
    },
    /// The lock.
    Lock,
    /// A listening socket.
    Socket { name: String, address: String },
    /// That was all.
    All,
    /// I am accepting connections.
    Ready { state: Value },
    /// I accept no more.
    Yours,
    /// No; I go on.
    Refused { why: String },
}

/// A stream of messages, each behind its length in four bytes.
pub(crate) struct Link(UnixStream);

impl Link {
    /// Connects to whoever listens at the path.
    pub(crate) fn connect(path: &Path) -> io::Result<Self> {
        let socket = new_socket()?;
        let place = Place::of(path)?;
        rustix::net::connect(&socket, &place.address)?;
        Ok(Self(UnixStream::from_std(socket.into())?))
    }

    /// The user of the process at the other end, which must be this process' own or root.
    pub(crate) fn check_peer(&self) -> Result<(), HandoverError> {
        let peer = rustix::net::sockopt::socket_peercred(&self.0)
            .map_err(|error| HandoverError::Link(error.into()))?;
        if peer.uid.is_root() || peer.uid == rustix::process::geteuid() {
            return Ok(());
        }
        Err(HandoverError::Stranger(peer.uid.as_raw()))
    }

    pub(crate) async fn send(
        &self,
        message: &Message,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<(), HandoverError> {
        let bytes = framed(message)?;
        let mut sent = 0;
        while sent < bytes.len() {
            // The descriptor goes with the first byte.
            let descriptor = descriptor.filter(|_| sent == 0);
            let some = self.0.async_io(Interest::WRITABLE, || {
                send(self.0.as_fd(), &bytes[sent..], descriptor)
            });
            sent += some.await.map_err(gone_or_failed)?;
        }
        Ok(())
    }

    pub(crate) async fn receive(&self) -> Result<(Message, Option<OwnedFd>), HandoverError> {
        let mut descriptor = None;
        let mut length = [0; 4];
        self.fill(&mut length, &mut descriptor).await?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > MAX_MESSAGE {
            return Err(too_long(length));
        }
        let mut bytes = vec![0; length];
        self.fill(&mut bytes, &mut descriptor).await?;
        let message =
            serde_json::from_slice(&bytes).map_err(|e| HandoverError::Protocol(e.to_string()))?;
        match message {
            Message::Refused { why } => Err(HandoverError::Refused(why)),
            message => Ok((message, descriptor)),
        }
    }

    async fn fill(
        &self,
        buffer: &mut [u8],
        descriptor: &mut Option<OwnedFd>,
    ) -> Result<(), HandoverError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let some = self.0.async_io(Interest::READABLE, || {
                receive(self.0.as_fd(), &mut buffer[filled..], descriptor)
            });
            match some.await.map_err(gone_or_failed)? {
                0 => return Err(HandoverError::Gone),
                some => filled += some,
            }
        }
        Ok(())
    }

    /// Tells the other side that it will not be, as far as that goes without waiting.
    pub(crate) fn refuse(&self, why: &str) {
        let message = Message::Refused {
            why: why.to_owned(),
        };
        if let Ok(bytes) = framed(&message)
            && let Err(error) = send(self.0.as_fd(), &bytes, None)
        {
            tracing::debug!(%error, "the other process could not be told that it is refused");
        }
    }
}

fn framed(message: &Message) -> Result<Vec<u8>, HandoverError> {
    let body = serde_json::to_vec(message).map_err(|e| HandoverError::Protocol(e.to_string()))?;
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    if body.len() > MAX_MESSAGE {
        return Err(too_long(body.len()));
    }
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(body);
    Ok(bytes)
}

fn too_long(length: usize) -> HandoverError {
    HandoverError::Protocol(format!("a message of {length} bytes is too long"))
}

fn gone_or_failed(error: io::Error) -> HandoverError {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => HandoverError::Gone,
        _ => HandoverError::Link(error),
    }
}

fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = descriptor.as_slice();
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    let sent = rustix::net::sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(sent)
}

fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    descriptor: &mut Option<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(buffer)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
            // More than one is not in the protocol; the others are closed.
            *descriptor = descriptors.next();
        }
    }
    if got.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::other(
            "a descriptor got lost: are too many files open?",
        ));
    }
    Ok(got.bytes)
}

/// Listens at the path under a temporary name and gives it the real one, in place of what lay there.
pub(crate) fn listen(path: &Path) -> io::Result<Listener> {
    let fresh = crate::claim::beside(path, ".new");
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = new_socket()?;
    // The file gets the mode that the socket has when it is bound.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    let place = Place::of(&fresh)?;
    rustix::net::bind(&socket, &place.address)?;
    rustix::net::listen(&socket, 16)?;
    std::fs::rename(&fresh, path)?;
    Ok(Listener(UnixListener::from_std(socket.into())?))
}

/// Where others connect.
pub(crate) struct Listener(UnixListener);

impl Listener {
    pub(crate) async fn accept(&self) -> io::Result<Link> {
        Ok(Link(self.0.accept().await?.0))
    }
}

fn new_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    Ok(socket)
}

/// A socket's address, also for a path that is longer than such an address may be.
struct Place {
    address: SocketAddrUnix,
    /// Keeps the folder's short name alive.
    _folder: Option<OwnedFd>,
}

impl Place {
    const LONGEST: usize = 100;

    fn of(path: &Path) -> io::Result<Self> {
        if path.as_os_str().as_bytes().len() <= Self::LONGEST {
            return Ok(Self {
                address: SocketAddrUnix::new(path)?,
                _folder: None,
            });
        }
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let folder = rustix::fs::open(folder, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let number = std::os::fd::AsRawFd::as_raw_fd(&folder);
        let short = PathBuf::from(format!("/proc/self/fd/{number}")).join(name);
        Ok(Self {
            address: SocketAddrUnix::new(&short)?,
            _folder: Some(folder),
        })
    }
}

/// A step with a deadline.
pub(crate) async fn within<T>(
    limit: Duration,
    what: &'static str,
    step: impl Future<Output = Result<T, HandoverError>>,
) -> Result<T, HandoverError> {
    tokio::time::timeout(limit, step)
        .await
        .unwrap_or(Err(HandoverError::TooLong(what)))
}

pub(crate) fn unexpected(message: &Message) -> HandoverError {
    let text = serde_json::to_string(message).unwrap_or_default();
    let mut text: String = text.chars().take(200).collect();
    text.insert_str(0, "unexpected message ");
    HandoverError::Protocol(text)
}
