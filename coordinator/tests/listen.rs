//! The listener: versions, limits, and peers that stand still.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails"
)]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use berth_coordinator::listen::{Counters, Limits, Listener};
use berth_coordinator::pki::{Authority, ServerCertificate, server_config};
use common::Running;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_of_tls_and_of_http_are_spoken() {
    use reqwest::tls::Version;
    let running = Running::start().await;
    for version in [Version::TLS_1_2, Version::TLS_1_3] {
        for http1 in [true, false] {
            let ca = reqwest::Certificate::from_pem(running.ca().as_bytes()).unwrap();
            let mut client = reqwest::Client::builder()
                .tls_certs_only([ca])
                .tls_version_min(version)
                .tls_version_max(version);
            if http1 {
                client = client.http1_only();
            }
            let url = running.url("/healthz");
            let answer = client.build().unwrap().get(url).send().await.unwrap();
            let spoken = match http1 {
                true => reqwest::Version::HTTP_11,
                false => reqwest::Version::HTTP_2,
            };
            assert_eq!((answer.status().as_u16(), answer.version()), (200, spoken));
        }
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_another_authority_does_not_get_in() {
    let running = Running::start().await;
    let other = Running::start().await;
    let answer = other.client().get(running.url("/healthz")).send().await;
    assert!(answer.unwrap_err().is_connect());
    let failed = &running.edge.figures.connections.failed_handshakes;
    while failed.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    other.stop().await;
    running.stop().await;
}

/// A listener of its own with a router that has one quick and one endless route.
struct Served {
    dir: TempDir,
    address: SocketAddr,
    counters: Arc<Counters>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Served {
    async fn start(limits: Limits) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::load_or_create(dir.path()).unwrap());
        let life = Duration::from_secs(3600);
        let certificate =
            ServerCertificate::create(Arc::clone(&authority), dir.path(), &[], life).unwrap();
        let tls = server_config(&authority, certificate).unwrap();
        let counters = Arc::<Counters>::default();
        let any = "127.0.0.1:0".parse().unwrap();
        let listener = Listener::bind(any, limits, Arc::clone(&counters))
            .await
            .unwrap();
        let address = listener.address().unwrap();
        let router = Router::new()
            .route("/quick", get(async || "quick"))
            .route("/endless", get(std::future::pending::<()>));
        let shutdown = CancellationToken::new();
        Self {
            dir,
            address,
            counters,
            task: tokio::spawn(listener.serve(tls, router, shutdown.clone())),
            shutdown,
        }
    }

    fn client(&self) -> reqwest::Client {
        let pem = std::fs::read(self.dir.path().join("ca.crt")).unwrap();
        reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()])
            .http1_only()
            .build()
            .unwrap()
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }
}

/// Whether the other side closes the connection within a time that is more than enough.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(common::LONG, stream.read_to_end(&mut rest)).await;
    read.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_or_nonsense_is_let_go() {
    let served = Served::start(Limits {
        handshake: Duration::from_millis(100),
        ..Limits::default()
    })
    .await;
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    assert!(is_closed(&mut silent).await);
    let mut plain = TcpStream::connect(served.address).await.unwrap();
    plain
        .write_all(b"GET /quick HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    assert!(is_closed(&mut plain).await);
    assert_eq!(served.counters.failed_handshakes.load(Ordering::Relaxed), 2);
    let answer = served.client().get(served.url("/quick")).send().await;
    assert_eq!(answer.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_too_many_is_closed_at_once_and_counted() {
    let served = Served::start(Limits {
        connections: 1,
        ..Limits::default()
    })
    .await;
    let client = served.client();
    client.get(served.url("/quick")).send().await.unwrap();
    let mut second = TcpStream::connect(served.address).await.unwrap();
    assert!(is_closed(&mut second).await);
    assert_eq!(served.counters.refused.load(Ordering::Relaxed), 1);
    // The client may not have its kept connection back yet; another one is refused until that has gone.
    let again = async {
        loop {
            match client.get(served.url("/quick")).send().await {
                Ok(response) => return response.status(),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    let status = tokio::time::timeout(common::LONG, again).await.unwrap();
    assert_eq!(status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_waits_for_requests_but_not_for_ever() {
    let served = Served::start(Limits {
        drain: Duration::from_millis(300),
        ..Limits::default()
    })
    .await;
    let request = served.client().get(served.url("/endless")).send();
    let pending = tokio::spawn(request);
    let accepted = &served.counters.accepted;
    while accepted.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    served.shutdown.cancel();
    let ended = tokio::time::timeout(common::LONG, served.task).await;
    ended.unwrap().unwrap();
    let cut = tokio::time::timeout(common::LONG, pending).await.unwrap();
    assert!(cut.unwrap().is_err());
}
