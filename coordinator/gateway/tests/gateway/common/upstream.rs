//! Instances: small HTTP servers that a test steers.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

pub(crate) type Body = BoxBody<Bytes, std::io::Error>;
type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, std::io::Error>> + Send>>;

/// An instance. Dropping it kills it: its sockets close at once, whatever they were doing.
pub(crate) struct Upstream {
    pub(crate) addr: SocketAddr,
    requests: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Upstream {
    /// Answers by a function; an error closes the connection without an answer.
    pub(crate) async fn new<F, Fut>(answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<Body>, std::io::Error>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicU64::new(0));
        let connections = Arc::new(AtomicU64::new(0));
        let answer: Arc<dyn Fn(Request<Incoming>) -> Answer + Send + Sync> =
            Arc::new(move |request| Box::pin(answer(request)));
        let (count, count_connections) = (Arc::clone(&requests), Arc::clone(&connections));
        let task = tokio::spawn(async move {
            // Aborting this task drops the set, which aborts the connections.
            let mut serving = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count_connections.fetch_add(1, Ordering::SeqCst);
                stream.set_nodelay(true).unwrap();
                let (answer, count) = (Arc::clone(&answer), Arc::clone(&count));
                serving.spawn(async move {
                    let service = service_fn(|request| {
                        count.fetch_add(1, Ordering::SeqCst);
                        answer(request)
                    });
                    let io = TokioIo::new(stream);
                    drop(http1::Builder::new().serve_connection(io, service).await);
                });
            }
        });
        Self {
            addr,
            requests,
            connections,
            task,
        }
    }

    /// Answers every request with a text.
    pub(crate) async fn text(text: &'static str) -> Self {
        Self::new(move |_| async move { Ok(plain(text)) }).await
    }

    /// Answers with what it was asked: method, target, headers, body, line by line.
    pub(crate) async fn echo() -> Self {
        Self::new(|request| async move {
            let (parts, body) = request.into_parts();
            let mut text = format!("{} {}\n", parts.method, parts.uri);
            for (name, value) in &parts.headers {
                text.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
            }
            text.push('\n');
            let body = body
                .collect()
                .await
                .map_err(std::io::Error::other)?
                .to_bytes();
            text.push_str(&String::from_utf8_lossy(&body));
            Ok(plain(text))
        })
        .await
    }

    /// Accepts connections and hands each to a function.
    pub(crate) async fn raw<F, Fut>(serve: F) -> Self
    where
        F: Fn(TcpStream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut serving = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                serving.spawn(serve(stream));
            }
        });
        Self {
            addr,
            requests: Arc::default(),
            connections,
            task,
        }
    }

    /// An address where nobody listens.
    pub(crate) async fn nobody() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }
}

pub(crate) fn plain(text: impl Into<Bytes>) -> Response<Body> {
    Response::new(full(text))
}

pub(crate) fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into())
        .map_err(|never| match never {})
        .boxed()
}

/// Reads a request's head and its body by `content-length` from a raw connection.
pub(crate) async fn read_request(stream: &mut TcpStream) -> Option<String> {
    use tokio::io::AsyncReadExt;
    let mut all = Vec::new();
    loop {
        let mut buffer = [0; 65536];
        let n = stream.read(&mut buffer).await.ok().filter(|n| *n > 0)?;
        all.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&all).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|l| {
                l.to_ascii_lowercase()
                    .strip_prefix("content-length: ")?
                    .parse()
                    .ok()
            })
            .unwrap_or(0);
        if body.len() >= length {
            return Some(text);
        }
    }
}
