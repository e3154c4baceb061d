//! Clients' connections.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use http::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use crate::config::GatewayConfig;
use crate::headers::Client;
use crate::service::{self, Caller};
use crate::worker::Worker;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between requests.
    Idle,
    /// A request's head is coming, or a TLS handshake is going on.
    Head,
    /// A request is being served; its own timeouts apply.
    Busy,
}

/// What the sweep knows of a connection. Kept so that no connection needs a timer of its own.
pub(crate) struct Slot {
    state: Cell<State>,
    since: Cell<Instant>,
    expired: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Slot {
    fn new() -> Self {
        Self {
            state: Cell::new(State::Head),
            since: Cell::new(Instant::now()),
            expired: Cell::new(false),
            waker: RefCell::new(None),
        }
    }

    fn set(&self, state: State) {
        self.state.set(state);
        self.since.set(Instant::now());
    }

    /// A request's head is complete.
    pub(crate) fn busy(&self, now: Instant) {
        self.state.set(State::Busy);
        self.since.set(now);
    }

    /// A request's response is over.
    pub(crate) fn idle(&self) {
        self.set(State::Idle);
    }

    fn bytes_came(&self) {
        if self.state.get() == State::Idle {
            self.set(State::Head);
        }
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// A thread's client connections.
#[derive(Default)]
pub(crate) struct Connections {
    slots: RefCell<HashMap<u64, Rc<Slot>>>,
    next: Cell<u64>,
    /// Whether responses say `connection: close`.
    say_close: Cell<bool>,
    close_idle: Cell<bool>,
    left: Notify,
}

impl Connections {
    pub(crate) fn len(&self) -> usize {
        self.slots.borrow().len()
    }

    pub(crate) fn says_close(&self) -> bool {
        self.say_close.get()
    }

    pub(crate) fn say_close(&self) {
        self.say_close.set(true);
    }

    /// Closes idle connections now and the others after their request.
    pub(crate) fn close_idle(&self) {
        self.close_idle.set(true);
        for slot in self.slots.borrow().values() {
            slot.wake();
        }
    }

    pub(crate) async fn none_left(&self) {
        while self.len() > 0 {
            self.left.notified().await;
        }
    }

    pub(crate) fn sweep(&self, now: Instant, config: &GatewayConfig) {
        for slot in self.slots.borrow().values() {
            let limit = match slot.state.get() {
                State::Busy => continue,
                State::Head => config.head_timeout.0,
                State::Idle => config.keep_alive_timeout.0,
            };
            if now.saturating_duration_since(slot.since.get()) > limit {
                slot.expired.set(true);
                slot.wake();
            }
        }
    }
}

/// A connection's entry among its thread's, removed by dropping it.
struct Entry {
    worker: Rc<Worker>,
    slot: Rc<Slot>,
    key: u64,
}

impl Entry {
    fn new(worker: Rc<Worker>) -> Self {
        let connections = &worker.connections;
        let key = connections.next.get();
        connections.next.set(key + 1);
        let slot = Rc::new(Slot::new());
        connections.slots.borrow_mut().insert(key, Rc::clone(&slot));
        Self { worker, slot, key }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let connections = &self.worker.connections;
        connections.slots.borrow_mut().remove(&self.key);
        connections.left.notify_one();
        self.worker
            .shared
            .process
            .open
            .fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves one client until either side closes.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    stream: TcpStream,
    from: SocketAddr,
    tls: Option<TlsAcceptor>,
) {
    let entry = Entry::new(Rc::clone(&worker));
    let options = stream.set_nodelay(true).and_then(|()| {
        let timeout = worker.shared.config.client_timeout.0;
        SockRef::from(&stream).set_tcp_user_timeout(Some(timeout))
    });
    if let Err(error) = options {
        tracing::debug!(%from, %error, "client is gone");
        return;
    }
    let scheme = if tls.is_some() { "https" } else { "http" };
    let client = Client {
        addr: HeaderValue::try_from(from.ip().to_canonical().to_string())
            .unwrap_or_else(|_| HeaderValue::from_static("unknown")),
        scheme: HeaderValue::from_static(scheme),
    };
    match tls {
        None => http1(&entry, stream, client).await,
        Some(tls) => {
            let mut handshake = pin!(tls.accept(stream));
            let secured = poll_fn(|cx| {
                if expired(&entry.slot, cx) {
                    return Poll::Ready(None);
                }
                handshake.as_mut().poll(cx).map(Some)
            });
            match secured.await {
                Some(Ok(stream)) => http1(&entry, stream, client).await,
                Some(Err(error)) => tracing::debug!(%from, %error, "TLS handshake failed"),
                None => tracing::debug!(%from, "TLS handshake took too long"),
            }
        }
    }
}

/// Leaves the waker with the slot and says whether the connection's time is up.
fn expired(slot: &Slot, cx: &Context<'_>) -> bool {
    let mut waker = slot.waker.borrow_mut();
    match &mut *waker {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *waker = Some(cx.waker().clone()),
    }
    slot.expired.get() && slot.state.get() != State::Busy
}

async fn http1<T: AsyncRead + AsyncWrite + Unpin>(entry: &Entry, stream: T, client: Client) {
    const HYPER_MAX_HEADERS: usize = 100;
    let worker = &entry.worker;
    let config = &worker.shared.config;
    entry.slot.idle();
    let caller = Rc::new(Caller {
        worker: Rc::clone(worker),
        slot: Rc::clone(&entry.slot),
        client,
    });
    let service = service_fn(move |request| service::handle(Rc::clone(&caller), request));
    let io = TokioIo::new(Watched {
        stream,
        slot: Rc::clone(&entry.slot),
    });
    let mut builder = http1::Builder::new();
    builder.header_read_timeout(None);
    builder.max_header_size(usize::try_from(config.max_head.0).unwrap_or(usize::MAX));
    if config.max_headers != HYPER_MAX_HEADERS {
        // hyper's own limit needs no allocation.
        builder.max_headers(config.max_headers);
    }
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut told = false;
    poll_fn(|cx| {
        if expired(&entry.slot, cx) {
            return Poll::Ready(());
        }
        if worker.connections.close_idle.get() && !told {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx).map(|result| {
            if let Err(error) = result {
                tracing::trace!(%error, "client connection ended");
            }
        })
    })
    .await;
}

/// Answers a connection that is one too many, as far as that goes without waiting.
pub(crate) fn turn_away(stream: &TcpStream) {
    const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
        content-type: application/json\r\nberth-error: overloaded\r\nretry-after: 1\r\n\
        connection: close\r\ncontent-length: 49\r\n\r\n\
        {\"error\": \"The gateway has too many connections\"}";
    if let Err(error) = SockRef::from(stream).send(ANSWER) {
        tracing::trace!(%error, "cannot answer a connection that is turned away");
    }
}

/// A stream that tells its slot when a request begins to come.
struct Watched<T> {
    stream: T,
    slot: Rc<Slot>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.slot.bytes_came();
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_what_is_overdue_expires() {
        let config = GatewayConfig::default();
        let connections = Connections::default();
        let start = Instant::now();
        let mut slots = Vec::new();
        for (key, state) in [State::Idle, State::Head, State::Busy]
            .into_iter()
            .enumerate()
        {
            let slot = Rc::new(Slot::new());
            slot.state.set(state);
            slot.since.set(start);
            connections
                .slots
                .borrow_mut()
                .insert(key as u64, Rc::clone(&slot));
            slots.push(slot);
        }
        let expired = |seconds| {
            connections.sweep(start + Duration::from_secs(seconds), &config);
            slots.iter().map(|s| s.expired.get()).collect::<Vec<_>>()
        };
        assert_eq!(expired(9), [false, false, false]);
        assert_eq!(expired(11), [false, true, false]);
        assert_eq!(expired(76), [true, true, false]);
    }

    #[test]
    fn the_fixed_answer_has_its_length() {
        assert_eq!(
            "{\"error\": \"The gateway has too many connections\"}".len(),
            49
        );
    }
}
