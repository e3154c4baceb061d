//! A gateway, instances and clients for tests: real sockets on loopback.

pub(crate) mod upstream;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use berth_gateway::{Gateway, GatewayConfig, Handle};
use berth_model::manifest::Limits;
use berth_model::route::{RevisionRoute, ServiceRoute, Table};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A configuration for tests: free ports on loopback, two threads.
pub(crate) fn config() -> GatewayConfig {
    GatewayConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        admin_listen: ([127, 0, 0, 1], 0).into(),
        threads: 2,
        ..GatewayConfig::default()
    }
}

/// A gateway with a table.
pub(crate) struct Rig {
    pub(crate) gateway: Gateway,
    pub(crate) handle: Handle,
}

impl Rig {
    pub(crate) fn with(config: GatewayConfig, table: Table) -> Self {
        let gateway = Gateway::bind(config).unwrap();
        let handle = gateway.handle();
        handle.publish(table).unwrap();
        Self { gateway, handle }
    }

    pub(crate) fn new(table: Table) -> Self {
        Self::with(config(), table)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.gateway.addr()
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.addr()).await
    }

    /// One request on a connection of its own.
    pub(crate) async fn call(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Reply {
        self.client().await.call(method, path, body).await
    }

    pub(crate) async fn predict(&self, service: &str) -> Reply {
        let path = format!("/v1/models/{service}:predict");
        self.call(Method::POST, &path, "{\"instances\": []}").await
    }

    /// The value of a metric, the samples whose labels contain `labels` added up.
    pub(crate) fn metric(&self, name: &str, labels: &str) -> u64 {
        let text = self.handle.metrics_text();
        let samples = text.lines().filter_map(|line| {
            let rest = line.strip_prefix("berth_gateway_")?.strip_prefix(name)?;
            let (seen, value) = rest.rsplit_once(' ')?;
            let whole = seen.is_empty() || seen.starts_with('{');
            (whole && seen.contains(labels)).then(|| value.parse::<f64>().unwrap() as u64)
        });
        samples.sum()
    }
}

/// A service's instances as `SERVICE.1.N.1`, at these addresses.
pub(crate) fn table(generation: u64, services: &[(&str, &[SocketAddr])]) -> Table {
    let mut table = Table::default();
    table.version.generation = generation;
    for (name, addrs) in services {
        let route = ServiceRoute {
            revisions: BTreeMap::from([(1, revision(name, 1, 1, addrs))]),
            ..ServiceRoute::default()
        };
        table.services.insert(name.parse().unwrap(), route);
    }
    table
}

pub(crate) fn revision(
    service: &str,
    number: u32,
    serial: u64,
    addrs: &[SocketAddr],
) -> RevisionRoute {
    let instances = addrs.iter().enumerate().map(|(ordinal, addr)| {
        let id = format!("{service}.{number}.{ordinal}.1");
        (id.parse().unwrap(), *addr)
    });
    RevisionRoute {
        relayed: Default::default(),
        serial,
        version: semver::Version::new(serial, 0, 0),
        predict_path: None,
        protocol: Default::default(),
        limits: Limits::default(),
        instances: instances.collect(),
    }
}

/// The same table with other limits for service `name`.
pub(crate) fn limited(mut table: Table, name: &str, limits: Limits) -> Table {
    let service = table.services.get_mut(name).unwrap();
    for revision in service.revisions.values_mut() {
        revision.limits = limits.clone();
    }
    table
}

/// A response, read to its end.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The message of one of the gateway's own answers.
    pub(crate) fn error(&self) -> String {
        let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        json["error"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    #[track_caller]
    pub(crate) fn refused(self, status: u16, kind: &str) -> Self {
        assert_eq!(self.header("berth-error"), kind, "{self:?}");
        assert_eq!(self.header("content-type"), "application/json");
        assert!(!self.header("x-request-id").is_empty());
        assert!(!self.error().is_empty());
        self.expect(status)
    }
}

/// A connection to the gateway.
pub(crate) struct Client {
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        Self::try_connect(addr).await.unwrap()
    }

    pub(crate) async fn try_connect(addr: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    pub(crate) fn request(
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Request<Full<Bytes>> {
        Request::builder()
            .method(method)
            .uri(path)
            .header("host", "models.example")
            .body(Full::new(body.into()))
            .unwrap()
    }

    pub(crate) async fn start(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> hyper::Result<Response<hyper::body::Incoming>> {
        self.sender.ready().await?;
        self.sender.send_request(request).await
    }

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Reply> {
        let (parts, body) = self.start(request).await?.into_parts();
        Ok(Reply {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await?.to_bytes(),
        })
    }

    pub(crate) async fn call(
        &mut self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Reply {
        self.send(Self::request(method, path, body)).await.unwrap()
    }
}

/// Sends bytes as they are and reads until the gateway closes (or `patience` is over).
pub(crate) async fn raw(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    read_to_end(&mut stream).await
}

pub(crate) async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let reading = async {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = stream.read(&mut buffer).await {
            all.extend_from_slice(&buffer[..n]);
        }
    };
    let patience = Duration::from_secs(20);
    tokio::time::timeout(patience, reading)
        .await
        .expect("the gateway closes");
    String::from_utf8_lossy(&all).into_owned()
}

/// Waits for a condition.
#[track_caller]
pub(crate) fn until(what: &str, condition: impl Fn() -> bool) -> impl Future<Output = ()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    async move {
        while !condition() {
            assert!(Instant::now() < deadline, "{what} did not happen");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Counts requests of a steady load.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) ok: AtomicU64,
    pub(crate) failed: AtomicU64,
}

impl Tally {
    pub(crate) fn ok(&self) -> u64 {
        self.ok.load(Ordering::SeqCst)
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::SeqCst)
    }
}
