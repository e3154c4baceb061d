//! The gateway's process: it follows the coordinator's route table and serves without it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails"
)]

mod common;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_coordinator::gateway_role::{self, Config, GatewayRoleError};
use berth_coordinator::run::DATABASE_FILE;
use berth_model::route::{Order, Table};
use berth_proto::v1::agent_message::Message;
use berth_proto::v1::routes_client::RoutesClient;
use berth_proto::v1::{AgentMessage, GatewayHello, GatewayMessage, Hello};
use common::Running;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

struct Gateway {
    dir: PathBuf,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), GatewayRoleError>>,
}

impl Gateway {
    fn start(running: &Running, token: &str) -> Self {
        Self::at(&running.dir, running.address, token)
    }

    fn at(scratch: &TempDir, coordinator: SocketAddr, token: &str) -> Self {
        let (dir, data) = (
            scratch.path().join("gateway"),
            scratch.path().join("coordinator"),
        );
        // So that what is read below is this run's.
        let _ = std::fs::remove_file(dir.join(gateway_role::ENDPOINT_FILE));
        let _ = std::fs::remove_file(dir.join(gateway_role::ADMIN_ENDPOINT_FILE));
        let config = Config {
            endpoint: coordinator.to_string(),
            ca_file: data.join("ca.crt"),
            token_file: data.join(token),
            data_dir: dir.clone(),
            name: Some("edge-1".parse().unwrap()),
            gateway: berth_gateway::GatewayConfig {
                listen: "127.0.0.1:0".parse().unwrap(),
                admin_listen: "127.0.0.1:0".parse().unwrap(),
                threads: 1,
                drain_timeout: berth_model::time::Span::secs(1),
                ..berth_gateway::GatewayConfig::default()
            },
            ..Config::default()
        };
        let shutdown = CancellationToken::new();
        Self {
            dir,
            task: tokio::spawn(gateway_role::run(config, shutdown.clone())),
            shutdown,
        }
    }

    async fn address(&self, file: &str) -> SocketAddr {
        let path = self.dir.join(file);
        let text = until(async || std::fs::read_to_string(&path).ok()).await;
        text.trim().parse().unwrap()
    }

    /// Status of its readiness probe.
    async fn ready(&self) -> bool {
        let address = self.address(gateway_role::ADMIN_ENDPOINT_FILE).await;
        let answer = reqwest::get(format!("http://{address}/readyz")).await;
        answer.is_ok_and(|answer| answer.status() == 200)
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn control_knows_both_while_one_takes_over_and_forgets_the_one_that_ends() {
    let running = Running::start().await;
    let old = Gateway::start(&running, "gateway.token");
    let current = async || {
        let all = gateways(&running).await;
        all.into_iter().find(|view| view["current"] == true)
    };
    let before = until(current).await;
    // Idle connections keep the old one alive for a while after it has handed over.
    let address = old.address(gateway_role::ENDPOINT_FILE).await;
    let idle = tokio::net::TcpStream::connect(address).await.unwrap();
    let new = Gateway::start(&running, "gateway.token");
    let followers = async || {
        let answer = running.request("GET", "/metrics").send().await.unwrap();
        let text = answer.text().await.unwrap();
        let line = text
            .lines()
            .find(|l| l.starts_with("berth_gateway_followers "));
        line.unwrap().rsplit(' ').next().unwrap().to_owned()
    };
    until(async || (followers().await == "2").then_some(())).await;
    // Nobody told it to end; it lets go when its last connection is closed.
    old.task.await.unwrap().unwrap();
    drop(idle);
    until(async || (followers().await == "1").then_some(())).await;
    assert_eq!(new.address(gateway_role::ENDPOINT_FILE).await, address);
    assert_eq!(until(current).await, before);
    assert!(new.ready().await);
    new.stop().await;
    running.stop().await;
}

/// Asks until there is an answer.
async fn until<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    tokio::time::timeout(common::LONG, async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("an answer in time")
}

async fn gateways(running: &Running) -> Vec<Value> {
    let list = running.get("/v1/gateways").await;
    list["items"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_acknowledges_the_table_and_serves_by_the_one_on_disk_when_the_coordinator_is_gone() {
    let running = Running::start().await;
    let gateway = Gateway::start(&running, "gateway.token");
    let view = until(async || {
        let all = gateways(&running).await;
        all.into_iter().find(|view| view["current"] == true)
    })
    .await;
    assert_eq!(
        (view["name"].as_str(), view["connected"].as_bool()),
        (Some("edge-1"), Some(true))
    );
    let address = gateway.address(gateway_role::ENDPOINT_FILE).await;
    assert_eq!(view["url"], format!("http://{address}"));
    assert!(until(async || gateway.ready().await.then_some(true)).await);
    gateway.stop().await;
    until(async || {
        let all = gateways(&running).await;
        all.iter()
            .all(|view| view["connected"] == false)
            .then_some(())
    })
    .await;

    // Nobody is there when it starts anew, and it serves all the same.
    let (dir, address) = (Arc::clone(&running.dir), running.address);
    running.stop().await;
    let gateway = Gateway::at(&dir, address, "gateway.token");
    assert!(until(async || gateway.ready().await.then_some(true)).await);

    // The coordinator comes back, and it finds it.
    let running = Running::within(dir, |config| config.listen = address).await;
    until(async || {
        let all = gateways(&running).await;
        all.into_iter().find(|view| view["current"] == true)
    })
    .await;
    gateway.stop().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_token_there_is_no_table() {
    let running = Running::start().await;
    let gateway = Gateway::start(&running, "metrics.token");
    let _ = gateway.address(gateway_role::ENDPOINT_FILE).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(gateways(&running).await.is_empty());
    assert!(!gateway.ready().await);
    gateway.stop().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restore_there_is_no_table_until_the_nodes_have_reported() {
    let running = Running::start().await;
    let node = running.node("n1").await;
    let (dir, database) = (Arc::clone(&running.dir), running.data().join(DATABASE_FILE));
    running.stop().await;
    let copy = dir.path().join("backup");
    berth_store::backup(&database, &copy).unwrap();
    berth_store::restore(&copy, &database).unwrap();
    let running = Running::within(dir, |_| {}).await;

    let (hello, messages) = mpsc::channel(1);
    let first = GatewayMessage {
        hello: Some(GatewayHello {
            name: "edge-1".to_owned(),
            url: "http://127.0.0.1:1".to_owned(),
            ..GatewayHello::default()
        }),
        report: None,
        csr: Default::default(),
        goodbye: false,
    };
    hello.send(first).await.unwrap();
    let mut request = tonic::Request::new(ReceiverStream::new(messages));
    let token = format!("Bearer {}", running.token("gateway"));
    let token = token.parse().unwrap();
    request.metadata_mut().insert("authorization", token);
    let channel = running.channel(None).await.unwrap();
    let mut tables = RoutesClient::new(channel)
        .follow(request)
        .await
        .unwrap()
        .into_inner();
    until(async || {
        let all = gateways(&running).await;
        all.iter()
            .any(|view| view["connected"] == true)
            .then_some(())
    })
    .await;

    let (out, messages) = mpsc::channel(1);
    let word = AgentMessage {
        message: Some(Message::Hello(Hello {
            facts: Some(common::facts(&node.name)),
            incarnation: "one".to_owned(),
            ..Hello::default()
        })),
    };
    out.send(word).await.unwrap();
    let mut agents = running.agents(&node).await;
    let _session = agents.session(ReceiverStream::new(messages)).await.unwrap();
    let first = tokio::time::timeout(common::LONG, tables.message()).await;
    let first = first.unwrap().unwrap().unwrap();
    let table: Table = serde_json::from_slice(&first.table_json).unwrap();
    assert_ne!(table.version, Order::default());
    running.stop().await;
}
