//! Accepting connections.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;

use crate::metrics::Metrics;
use crate::session::{Shared, serve};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;
/// Pause after a failure that lasts, as no descriptors being left.
const PAUSE: Duration = Duration::from_millis(50);

/// A socket that is listened on, and who accepts.
pub(crate) struct Door {
    /// As it was configured.
    pub(crate) address: SocketAddr,
    listener: std::net::TcpListener,
    accepting: JoinHandle<()>,
}

impl Door {
    /// Listens and accepts.
    pub(crate) fn open(shared: &Arc<Shared>, address: SocketAddr) -> io::Result<Self> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?.into_std()?;
        Self::of(shared, address, listener)
    }

    /// Accepts on a socket that another process listened on.
    pub(crate) fn of(
        shared: &Arc<Shared>,
        address: SocketAddr,
        listener: std::net::TcpListener,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let accepting = TcpListener::from_std(listener.try_clone()?)?;
        Ok(Self {
            address,
            listener,
            accepting: tokio::spawn(accept(Arc::clone(shared), accepting)),
        })
    }

    /// The socket, for the process that replaces this one.
    pub(crate) fn socket(&self) -> io::Result<OwnedFd> {
        Ok(self.listener.try_clone()?.into())
    }

    /// Where it listens indeed.
    pub(crate) fn local(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                Metrics::count(&shared.metrics.accepted);
                match shared.limits.handshake(from.ip()) {
                    Some(place) => drop(tokio::spawn(serve(Arc::clone(&shared), stream, place))),
                    None => Metrics::count(&shared.metrics.crowded),
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                let passing = matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                );
                if !passing {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}
