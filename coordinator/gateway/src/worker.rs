//! One thread: its listening socket, its connections, its view of the table.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use http::{HeaderMap, HeaderValue};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio_rustls::TlsAcceptor;

use crate::downstream::{self, Connections};
use crate::pulse;
use crate::routing::Routing;
use crate::shared::{Phase, Shared};
use crate::upstream::{Connector, Pool};

pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    table: RefCell<Cache<Arc<ArcSwap<Routing>>, Arc<Routing>>>,
    seen: Cell<u64>,
    pub(crate) pool: Pool,
    pub(crate) connector: Connector,
    pub(crate) rng: RefCell<SmallRng>,
    pub(crate) connections: Rc<Connections>,
    /// For requests to come.
    headers: RefCell<Vec<HeaderMap>>,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, index: usize) -> Self {
        let config = &shared.config;
        Self {
            index,
            table: RefCell::new(Cache::new(Arc::clone(&shared.table))),
            seen: Cell::new(0),
            pool: Pool::new(config.pool_max_idle, config.pool_idle_timeout.0),
            connector: Connector {
                connect_timeout: config.connect_timeout.0,
                user_timeout: config.upstream_timeout.0,
                relays: Arc::clone(&shared.relays),
            },
            rng: RefCell::new(SmallRng::from_os_rng()),
            connections: Rc::default(),
            headers: RefCell::default(),
            shared,
        }
    }

    /// Reads the newest table. Synchronous on purpose: whoever chooses an instance must have counted
    /// the request before it lets go of the table (see the crate's documentation).
    pub(crate) fn with_table<R>(&self, read: impl FnOnce(&Routing) -> R) -> R {
        let mut cache = self.table.borrow_mut();
        let routing = cache.load();
        if routing.sequence != self.seen.get() {
            self.seen.set(routing.sequence);
            self.shared.saw(self.index, routing.sequence);
        }
        read(routing)
    }

    /// 128 random bits.
    pub(crate) fn new_request_id(&self) -> HeaderValue {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut id: u128 = self.rng.borrow_mut().random();
        let mut text = [0; 32];
        for digit in text.iter_mut().rev() {
            *digit = DIGITS[(id & 0xf) as usize];
            id >>= 4;
        }
        HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("0"))
    }

    /// An empty map of headers, with room if there was one to use again.
    pub(crate) fn spare_headers(&self) -> HeaderMap {
        self.headers.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes a map of headers that is not needed any more.
    pub(crate) fn reuse_headers(&self, mut headers: HeaderMap) {
        const KEPT: usize = 64;
        let mut kept = self.headers.borrow_mut();
        if kept.len() < KEPT {
            headers.clear();
            kept.push(headers);
        }
    }
}

/// Serves until told to stop. Called on the thread's own runtime.
pub(crate) async fn run(worker: Rc<Worker>, listeners: Vec<TcpListener>, tls: Option<TlsAcceptor>) {
    spawn_local(follow_tables(Rc::clone(&worker)));
    spawn_local(sweep(Rc::clone(&worker)));
    spawn_local(pulse::answer(Rc::clone(&worker)));
    let mut phase = worker.shared.phase.subscribe();
    let begun = phase.wait_for(|phase| *phase != Phase::Wait).await.is_ok();
    if begun {
        // More than one where a process with more threads handed its sockets over.
        let all = listeners
            .into_iter()
            .map(|listener| spawn_local(accept(Rc::clone(&worker), listener, tls.clone())));
        for accepting in all.collect::<Vec<_>>() {
            if let Err(error) = accepting.await {
                tracing::error!(%error, "a listener ended badly");
            }
        }
    }
    drain(&worker).await;
}

/// Accepts connections until told to stop.
async fn accept(worker: Rc<Worker>, listener: TcpListener, tls: Option<TlsAcceptor>) {
    let mut phase = worker.shared.phase.subscribe();
    loop {
        tokio::select! {
            biased;
            changed = phase.wait_for(|phase| *phase != Phase::Run) => {
                // A closed channel means that the gateway is gone.
                drop(changed);
                break;
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => admit(&worker, stream, from, tls.as_ref()),
                Err(e) => {
                    tracing::warn!(error = %e, "cannot accept a connection");
                    if is_lasting(&e) {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            },
        }
    }
    // Whom the system has already let in is served.
    while let Some(Ok((stream, from))) = accept_now(&listener) {
        admit(&worker, stream, from, tls.as_ref());
    }
}

/// Accepts a connection that is waiting, if any.
fn accept_now(listener: &TcpListener) -> Option<io::Result<(TcpStream, SocketAddr)>> {
    match SockRef::from(listener).accept() {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => None,
        Err(e) => Some(Err(e)),
        Ok((socket, from)) => {
            let stream = socket
                .set_nonblocking(true)
                .and_then(|()| TcpStream::from_std(socket.into()));
            let from = from.as_socket().unwrap_or(([0, 0, 0, 0], 0).into());
            Some(stream.map(|stream| (stream, from)))
        }
    }
}

/// Whether the next `accept` will fail as well, so that trying at once would only burn time.
fn is_lasting(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

fn admit(worker: &Rc<Worker>, stream: TcpStream, from: SocketAddr, tls: Option<&TlsAcceptor>) {
    let process = &worker.shared.process;
    process.accepted.fetch_add(1, Ordering::Relaxed);
    let open = process.open.fetch_add(1, Ordering::Relaxed);
    if open >= worker.shared.config.max_connections as u64 {
        process.open.fetch_sub(1, Ordering::Relaxed);
        process.refused.fetch_add(1, Ordering::Relaxed);
        downstream::turn_away(&stream);
        return;
    }
    spawn_local(downstream::serve(
        Rc::clone(worker),
        stream,
        from,
        tls.cloned(),
    ));
}

/// Lets an idle thread move on to a new table as well.
async fn follow_tables(worker: Rc<Worker>) {
    let mut published = worker.shared.published.subscribe();
    loop {
        worker.with_table(|_| ());
        if published.changed().await.is_err() {
            return;
        }
    }
}

/// Closes connections, on both sides, that nobody has used for too long.
async fn sweep(worker: Rc<Worker>) {
    let mut ticks = tokio::time::interval(worker.shared.config.sweep_interval());
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = Instant::now();
        worker.connections.sweep(now, &worker.shared.config);
        worker.pool.sweep(now);
    }
}

/// Waits for the requests under way.
async fn drain(worker: &Worker) {
    let mut phase = worker.shared.phase.subscribe();
    let connections = &worker.connections;
    connections.say_close();
    loop {
        let drain = match *phase.borrow_and_update() {
            Phase::Drain(drain) => drain,
            Phase::Wait | Phase::Run | Phase::Stop => return,
        };
        let finish = async {
            let idle_until = drain.idle_until.into();
            let none_left = tokio::time::timeout_at(idle_until, connections.none_left()).await;
            if none_left.is_err() {
                connections.close_idle();
                connections.none_left().await;
            }
        };
        tokio::select! {
            () = finish => return,
            () = tokio::time::sleep_until(drain.until.into()) => {
                worker.shared.abandoned.fetch_add(connections.len() as u64, Ordering::SeqCst);
                return;
            }
            // It may be told to hurry, or to stop.
            changed = phase.changed() => if changed.is_err() { return },
        }
    }
}
