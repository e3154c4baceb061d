//! One connection: who comes, where to, and the bytes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use berth_model::id::InstanceId;
use berth_model::relay::{Answer, Caller, parse_instance_name};
use rustls_pki_types::CertificateDer;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::rustls::HandshakeKind;
use tokio_rustls::server::TlsStream;

use crate::folder::Target;
use crate::limits::{Handshake, Limits};
use crate::metrics::Metrics;
use crate::splice::splice;
use crate::state::{Current, Loader, State};

/// Longest time for TLS, and for an instance to accept.
const HANDSHAKE: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(2);
/// A connection on which nothing has moved for this long, or up to twice as long, is closed.
const IDLE: Duration = Duration::from_secs(3600);
/// Longest time without the caller taking any byte that it was sent: more than gateways give their clients.
const USER_TIMEOUT: Duration = Duration::from_secs(90);
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) loader: Loader,
    pub(crate) limits: Arc<Limits>,
    pub(crate) metrics: Metrics,
    /// True when whatever is still open is to be cut off.
    pub(crate) over: watch::Sender<bool>,
}

/// A caller that was let in, and what it asks for.
struct Guest {
    /// As it stands on the list; its certificate was compared with that.
    caller: Caller,
    instance: InstanceId,
    target: Target,
}

/// Serves one connection to its end.
pub(crate) async fn serve(shared: Arc<Shared>, stream: TcpStream, place: Handshake) {
    let Some(mut stream) = greet(&shared, stream).await else {
        return;
    };
    let mut over = shared.over.subscribe();
    let served = async {
        let end = visit(&shared, &mut stream, place).await;
        if let Err(error) = end {
            tracing::debug!(%error, "a connection ended");
        }
    };
    tokio::select! {
        () = served => {}
        _ = over.wait_for(|over| *over) => Metrics::count(&shared.metrics.cut),
    }
}

/// TLS, as far as that goes. Who is not let in is told by an alert at most.
async fn greet(shared: &Shared, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
    let state = shared.loader.current()?;
    let socket = SockRef::from(&stream);
    let probes = TcpKeepalive::new()
        .with_time(KEEP_ALIVE)
        .with_interval(KEEP_ALIVE_INTERVAL);
    let set = socket
        .set_tcp_nodelay(true)
        .and_then(|()| socket.set_tcp_user_timeout(Some(USER_TIMEOUT)))
        .and_then(|()| socket.set_tcp_keepalive(&probes));
    if let Err(error) = set {
        // It has gone already.
        tracing::trace!(%error, "cannot set up a connection");
        return None;
    }
    let handshake = async {
        // Who only looks whether somebody listens, as the node's agent does, is not refused anything.
        if stream.peek(&mut [0]).await? == 0 {
            return Ok(None);
        }
        state.acceptor().accept(stream).await.map(Some)
    };
    match timeout(HANDSHAKE, handshake).await {
        Ok(Ok(stream)) => return stream,
        Ok(Err(error)) => tracing::debug!(%error, "turned somebody away"),
        Err(_) => tracing::debug!("somebody took too long"),
    }
    Metrics::count(&shared.metrics.refused);
    None
}

fn introduce(stream: &TlsStream<TcpStream>) -> Option<(CertificateDer<'static>, InstanceId)> {
    let (_, session) = stream.get_ref();
    let certificate = session.peer_certificates()?.first()?.clone();
    let (instance, _) = parse_instance_name(session.server_name()?)?;
    Some((certificate, instance))
}

async fn visit(
    shared: &Shared,
    stream: &mut TlsStream<TcpStream>,
    place: Handshake,
) -> io::Result<()> {
    let metrics = &shared.metrics;
    let Some((certificate, instance)) = introduce(stream) else {
        return Ok(());
    };
    // From before the list is looked at: what changes while the instance is dialled counts as well.
    let mut current = shared.loader.subscribe();
    // A resumed session may be of one that has been sent away since.
    let state = current.borrow_and_update().clone();
    let caller = state.and_then(|state| state.admit(&certificate).cloned());
    let Some(caller) = caller else {
        Metrics::count(&metrics.refused);
        // In order: a relay that is killed looks different.
        return timeout(HANDSHAKE, stream.shutdown()).await?;
    };
    if stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
        Metrics::count(&metrics.resumed);
    }
    let connection = shared.limits.connection();
    // Not before: whoever waits for what is under way sees one or the other.
    drop(place);
    let Some(_connection) = connection else {
        return refuse(shared, stream, Answer::Busy).await;
    };
    let Some(target) = find(shared, &instance) else {
        return refuse(shared, stream, Answer::NoInstance).await;
    };
    let guest = Guest {
        caller,
        instance,
        target,
    };
    match &guest.target {
        Target::Tcp(address) => match timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(to)) => {
                to.set_nodelay(true)?;
                pass(shared, stream, to, &guest, current).await
            }
            _ => refuse(shared, stream, Answer::Refused).await,
        },
        Target::Unix(path) => match timeout(CONNECT, UnixStream::connect(path)).await {
            Ok(Ok(to)) => pass(shared, stream, to, &guest, current).await,
            _ => refuse(shared, stream, Answer::Refused).await,
        },
    }
}

/// Where an instance listens. One that is not known may be known to a table that was written just now.
fn find(shared: &Shared, instance: &InstanceId) -> Option<Target> {
    let known = |state: Arc<State>| state.table.instances.get(instance).cloned();
    shared.loader.current().and_then(known).or_else(|| {
        shared.loader.load();
        shared.loader.current().and_then(known)
    })
}

async fn refuse(
    shared: &Shared,
    stream: &mut TlsStream<TcpStream>,
    answer: Answer,
) -> io::Result<()> {
    Metrics::count(&shared.metrics.failed);
    let say = async {
        stream.write_all(&[answer.byte()]).await?;
        stream.shutdown().await
    };
    timeout(HANDSHAKE, say).await?
}

async fn pass(
    shared: &Shared,
    stream: &mut TlsStream<TcpStream>,
    mut to: impl AsyncRead + AsyncWrite + Unpin,
    guest: &Guest,
    mut current: watch::Receiver<Current>,
) -> io::Result<()> {
    let say = async {
        stream.write_all(&[Answer::Connected.byte()]).await?;
        stream.flush().await
    };
    timeout(HANDSHAKE, say).await??;
    let metrics = &shared.metrics;
    Metrics::count(&metrics.passed);
    let moved = AtomicBool::new(false);
    let mut looks = tokio::time::interval_at(tokio::time::Instant::now() + IDLE, IDLE);
    let splicing = splice(stream, &mut to, metrics, &moved);
    tokio::pin!(splicing);
    loop {
        tokio::select! {
            end = &mut splicing => return end,
            changed = current.changed() => {
                if changed.is_err() || !guest.may_stay(&current.borrow()) {
                    Metrics::count(&metrics.cut);
                    tracing::info!(instance = %guest.instance, "cut a connection off");
                    return Ok(());
                }
            }
            _ = looks.tick() => {
                if !moved.swap(false, Ordering::Relaxed) {
                    return Ok(());
                }
            }
        }
    }
}

impl Guest {
    /// Whether it would be let in to the same place now.
    fn may_stay(&self, current: &Current) -> bool {
        current.as_ref().is_some_and(|state| {
            state.table.callers.contains(&self.caller)
                && state.table.instances.get(&self.instance) == Some(&self.target)
        })
    }
}
