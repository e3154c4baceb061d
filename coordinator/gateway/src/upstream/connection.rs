//! One HTTP/1.1 connection to an instance, driven by whichever request uses it.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};

use super::io::{Io, Socket, Stream};
use super::{Failure, Relays};
use crate::body::AttemptBody;
use crate::routing::Endpoint;

/// A connection to a relay is used for so long, so that a relay that was replaced can end.
const RELAY_LIFE: Duration = Duration::from_secs(300);

type Driver = http1::Connection<TokioIo<Io>, AttemptBody>;

/// Makes connections.
pub(crate) struct Connector {
    pub(crate) connect_timeout: Duration,
    /// TCP_USER_TIMEOUT.
    pub(crate) user_timeout: Duration,
    /// For instances behind relays; none until the coordinator has certified this gateway.
    pub(crate) relays: Arc<ArcSwapOption<Relays>>,
}

impl Connector {
    pub(crate) async fn connect(&self, endpoint: &Endpoint) -> Result<Connection, Failure> {
        let stream = tokio::time::timeout(self.connect_timeout, self.open(endpoint))
            .await
            .map_err(|_| Failure::ConnectTimeout)??;
        let expires = match endpoint {
            Endpoint::Direct(_) => None,
            Endpoint::Relay(_) => Some(Instant::now() + RELAY_LIFE),
        };
        let socket = Socket::new(stream);
        let io = TokioIo::new(Io(Rc::clone(&socket)));
        let (sender, driver) = http1::handshake(io).await.map_err(|e| Failure::Broken {
            reason: reason(&e),
            sent: false,
            kept: false,
        })?;
        Ok(Connection {
            sender,
            driver: Some(Box::new(driver)),
            socket,
            kept: false,
            expires,
        })
    }

    async fn open(&self, endpoint: &Endpoint) -> Result<Stream, Failure> {
        match endpoint {
            Endpoint::Direct(address) => {
                let stream = self.dial(*address).await.map_err(Failure::Connect)?;
                Ok(Stream::Plain(stream))
            }
            Endpoint::Relay(via) => {
                let relays = self.relays.load_full().ok_or(Failure::NoIdentity)?;
                let stream = self.dial(via.relayed.address).await;
                let stream = stream.map_err(|error| match error.kind() {
                    // Its machine is there.
                    ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => {
                        Failure::Away(error.to_string())
                    }
                    _ => Failure::Connect(error),
                })?;
                Ok(Stream::Tls(Box::new(relays.open(via, stream).await?)))
            }
        }
    }

    async fn dial(&self, addr: SocketAddr) -> std::io::Result<TcpStream> {
        let socket = if addr.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        socket.set_nodelay(true)?;
        {
            // A host that vanishes is noticed while it owes an acknowledgement (user timeout) and
            // while it owes an answer (keep-alive probes).
            let socket = SockRef::from(&socket);
            socket.set_tcp_user_timeout(Some(self.user_timeout))?;
            let probes = TcpKeepalive::new()
                .with_time(Duration::from_secs(10))
                .with_interval(Duration::from_secs(5));
            socket.set_tcp_keepalive(&probes)?;
        }
        socket.connect(addr).await
    }
}

pub(crate) struct Connection {
    sender: SendRequest<AttemptBody>,
    /// None once the connection is closed.
    driver: Option<Box<Driver>>,
    socket: Rc<Socket>,
    /// Whether it has served a request before.
    kept: bool,
    /// Used for no request that begins later.
    expires: Option<Instant>,
}

impl Connection {
    /// Whether the last response and its request are over.
    pub(crate) fn is_idle(&self) -> bool {
        self.driver.is_some() && self.sender.is_ready()
    }

    /// Lets the connection read and write. `cx` is told when it can go on.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && Pin::new(driver).poll(cx).is_ready()
        {
            self.driver = None;
        }
    }

    /// Sends a request and waits for the response's head.
    pub(crate) async fn send(
        &mut self,
        request: Request<AttemptBody>,
    ) -> Result<Response<Incoming>, Failure> {
        let written = self.socket.written();
        let driver = &mut self.driver;
        let mut answer = pin!(self.sender.send_request(request));
        let result = poll_fn(|cx| {
            if let Some(running) = driver.as_mut()
                && Pin::new(running).poll(cx).is_ready()
            {
                // Dropped at once: that is what ends a request that it never took.
                *driver = None;
            }
            // What completes it is the driver, so nobody needs to be told.
            let mut nobody = Context::from_waker(Waker::noop());
            match answer.as_mut().poll(&mut nobody) {
                Poll::Pending if driver.is_none() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
                Poll::Ready(result) => Poll::Ready(Some(result)),
            }
        })
        .await;
        let why = match result {
            Some(Ok(response)) => return Ok(response),
            Some(Err(e)) => reason(&e),
            None => "closed".to_owned(),
        };
        Err(Failure::Broken {
            reason: why,
            sent: self.socket.written() > written,
            kept: self.kept,
        })
    }

    /// Whether nothing has come from the other side since the last response, not even its end.
    pub(super) fn is_quiet(&self) -> bool {
        self.socket.is_quiet()
    }

    /// Makes the connection fit for the next request; false if it is not.
    pub(super) fn settle(&mut self) -> bool {
        if !self.is_idle() {
            // Nobody is told: what happens to an unused connection is seen when it is used again.
            self.drive(&mut Context::from_waker(Waker::noop()));
        }
        self.kept = true;
        let expired = self.expires.is_some_and(|at| Instant::now() >= at);
        self.is_idle() && !expired
    }
}

/// hyper's reason with its cause.
fn reason(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
