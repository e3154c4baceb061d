//! The coordinator's one TLS listener: REST and gRPC on the same port, told apart by path.

mod stall;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::pki::key_hash_of_certificate;
use stall::{Patience, Stall};

/// How often it is told that connections are refused.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Who is at the other end of a connection; an extension of every request.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// SHA-256 (hexadecimal) of the key of its client certificate, if it showed one: a certificate
    /// of the fleet's authority, for client use, within its time.
    pub key_hash: Option<String>,
}

/// Deadlines and limits of the listener.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at a time; further ones are closed at once.
    pub connections: usize,
    /// Longest time for the TLS handshake.
    pub handshake: Duration,
    /// Longest time for a request's head, and for an HTTP/1.1 connection to be idle.
    pub head: Duration,
    /// Longest time in which a peer takes nothing of what waits for it.
    pub write: Duration,
    /// Time between HTTP/2 pings, and to wait for their answer.
    pub ping: Duration,
    /// Longest time for requests to end at shutdown.
    pub drain: Duration,
}

/// 4096 connections, 10 s handshake, 60 s head, 120 s write, 10 s pings, 5 s drain.
impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(60),
            write: Duration::from_secs(120),
            ping: Duration::from_secs(10),
            drain: Duration::from_secs(5),
        }
    }
}

/// What the listener counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections that were accepted.
    pub accepted: AtomicU64,
    /// Connections that were closed at once because there were too many.
    pub refused: AtomicU64,
    /// Handshakes that failed or took too long.
    pub failed_handshakes: AtomicU64,
}

/// A bound listener that does not serve yet.
pub struct Listener {
    tcp: TcpListener,
    limits: Limits,
    counters: Arc<Counters>,
}

impl Listener {
    /// Binds the address; port 0 takes a free one.
    pub async fn bind(
        address: SocketAddr,
        limits: Limits,
        counters: Arc<Counters>,
    ) -> io::Result<Self> {
        Ok(Self {
            tcp: TcpListener::bind(address).await?,
            limits,
            counters,
        })
    }

    /// The address that was bound.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves until `shutdown`, then for at most the drain time until the last request has ended.
    pub async fn serve(self, tls: ServerConfig, router: Router, shutdown: CancellationToken) {
        let server = Arc::new(Server {
            acceptor: TlsAcceptor::from(Arc::new(tls)),
            router,
            limits: self.limits,
            counters: self.counters,
            shutdown,
        });
        let tasks = TaskTracker::new();
        let mut told = None;
        loop {
            let accepted = tokio::select! {
                accepted = self.tcp.accept() => accepted,
                () = server.shutdown.cancelled() => break,
            };
            match accepted {
                Ok(_) if tasks.len() >= server.limits.connections => {
                    server.refuse(&mut told);
                }
                Ok((tcp, address)) => {
                    server.counters.accepted.fetch_add(1, Ordering::Relaxed);
                    tasks.spawn(Arc::clone(&server).connection(tcp, address));
                }
                Err(error) => {
                    // Out of file descriptors, most likely: connections that end give some back.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(self.tcp);
        tasks.close();
        if tokio::time::timeout(server.limits.drain, tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                connections = tasks.len(),
                "closing connections that did not end in time"
            );
        }
    }
}

/// Ends a connection whose peer was told in TLS what is wrong. It may have sent more by then, and a connection that is
/// closed with something unread is reset: the peer would lose what it was told, as that its certificate has expired.
async fn linger(mut tcp: TcpStream) {
    const LONGEST: Duration = Duration::from_secs(1);
    const MOST: u64 = 64 * 1024;
    let read = async {
        tcp.shutdown().await?;
        tokio::io::copy(&mut tcp.take(MOST), &mut tokio::io::sink()).await
    };
    // Whatever comes of it, the connection is over.
    let _ = tokio::time::timeout(LONGEST, read).await;
}

struct Server {
    acceptor: TlsAcceptor,
    router: Router,
    limits: Limits,
    counters: Arc<Counters>,
    shutdown: CancellationToken,
}

impl Server {
    async fn connection(self: Arc<Self>, tcp: TcpStream, address: SocketAddr) {
        // Only a hint to the kernel; a connection without it works, too.
        let _ = tcp.set_nodelay(true);
        let handshake = self.acceptor.accept(tcp).into_fallible();
        let tls = tokio::select! {
            result = tokio::time::timeout(self.limits.handshake, handshake) => match result {
                Ok(Ok(tls)) => tls,
                Ok(Err((error, tcp))) => {
                    self.failed_handshake(address, &error);
                    return linger(tcp).await;
                }
                Err(_) => return self.failed_handshake(address, &"it took too long"),
            },
            () = self.shutdown.cancelled() => return,
        };
        let (_, session) = tls.get_ref();
        let http2 = session.alpn_protocol() == Some(b"h2");
        let peer = Peer {
            address,
            key_hash: session
                .peer_certificates()
                .and_then(|chain| chain.first())
                .and_then(key_hash_of_certificate),
        };
        let patience = Patience {
            // An HTTP/2 peer has pings to answer; over HTTP/1.1 a reader of events may be silent.
            read: http2.then_some(self.limits.ping * 3),
            write: self.limits.write,
        };
        let io = TokioIo::new(Stall::new(tls, patience));
        let router = self.router.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer.clone());
            router.clone().oneshot(request)
        });
        let builder = self.builder(http2);
        let connection = builder.serve_connection(io, service);
        tokio::pin!(connection);
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = self.shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                match tokio::time::timeout(self.limits.drain, connection).await {
                    Ok(result) => result,
                    Err(_) => Ok(()),
                }
            }
        };
        if let Err(error) = result {
            tracing::debug!(%address, error, "a connection ended with an error");
        }
    }

    fn builder(&self, http2: bool) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head)
            .max_buf_size(64 * 1024);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(self.limits.ping)
            .keep_alive_timeout(self.limits.ping)
            .initial_stream_window_size(1024 * 1024)
            .initial_connection_window_size(4 * 1024 * 1024)
            .max_concurrent_streams(256)
            .max_header_list_size(32 * 1024);
        if http2 {
            builder.http2_only()
        } else {
            builder.http1_only()
        }
    }

    /// Counts a connection that is closed at once, and tells of it now and then.
    fn refuse(&self, told: &mut Option<Instant>) {
        let refused = self.counters.refused.fetch_add(1, Ordering::Relaxed) + 1;
        if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            *told = Some(Instant::now());
            tracing::warn!(
                refused,
                max_connections = self.limits.connections,
                "too many connections: new ones are closed at once; raise max_connections"
            );
        }
    }

    fn failed_handshake(&self, address: SocketAddr, error: &dyn std::fmt::Display) {
        self.counters
            .failed_handshakes
            .fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%address, %error, "a TLS handshake failed");
    }
}
