//! Peers one version apart: what older agents and gateways said, and an older coordinator's database. How
//! recordings are made is in `proto/recorded/README.md`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails"
)]

mod common;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use berth_coordinator::run::DATABASE_FILE;
use berth_model::route::Table;
use berth_proto::v1::agent_message::Message as FromAgent;
use berth_proto::v1::coordinator_message::Message as ToAgent;
use berth_proto::v1::routes_client::RoutesClient;
use berth_proto::v1::routes_server::{Routes, RoutesServer};
use berth_proto::v1::{
    AgentMessage, CoordinatorMessage, DesiredAck, DesiredSet, GatewayHello, GatewayMessage, Hello,
    InstanceStatus, RouteMessage, StatusReport,
};
use common::{Node, Running, facts};
use prost::Message;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

const ADDRESS: &str = "127.0.0.1:21000";

fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/recorded/d5cd8fe")
}

/// Messages, each behind its length.
fn read<M: Message + Default>(name: &str) -> Vec<M> {
    let bytes = std::fs::read(recorded().join(name)).unwrap();
    let mut rest = bytes.as_slice();
    let mut all = Vec::new();
    while !rest.is_empty() {
        all.push(M::decode_length_delimited(&mut rest).unwrap());
    }
    assert!(!all.is_empty(), "{name}");
    all
}

fn write<M: Message>(folder: &Path, name: &str, messages: &[M]) {
    let bytes = messages
        .iter()
        .flat_map(Message::encode_length_delimited_to_vec);
    std::fs::write(folder.join(name), bytes.collect::<Vec<u8>>()).unwrap();
}

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

/// What is said to the coordinator, and what it answers.
async fn session(
    running: &Running,
    node: &Node,
) -> (mpsc::Sender<AgentMessage>, Streaming<CoordinatorMessage>) {
    let (say, messages) = mpsc::channel(64);
    let mut client = running.agents(node).await;
    let answers = client.session(ReceiverStream::new(messages)).await;
    (say, answers.unwrap().into_inner())
}

async fn follow(
    running: &Running,
    messages: mpsc::Receiver<GatewayMessage>,
) -> Streaming<RouteMessage> {
    let mut request = Request::new(ReceiverStream::new(messages));
    let token = format!("Bearer {}", running.token("gateway"));
    let metadata = request.metadata_mut();
    metadata.insert("authorization", token.parse().unwrap());
    let channel = running.channel(None).await.unwrap();
    let answer = RoutesClient::new(channel).follow(request).await.unwrap();
    answer.into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_agent_is_served() {
    let running = Running::start().await;
    let node = running.node("n1").await;
    let (say, mut answers) = session(&running, &node).await;
    let mut reports = 0;
    let mut greeted = false;
    for message in read::<AgentMessage>("agent-to-coordinator.bin") {
        match &message.message {
            // It was killed once: what follows is another session's.
            Some(FromAgent::Hello(_)) if greeted => break,
            Some(FromAgent::Hello(_)) => greeted = true,
            Some(FromAgent::Status(_)) => reports += 1,
            _ => {}
        }
        say.send(message).await.unwrap();
    }
    assert!(reports > 1);
    let mut acknowledged = 0;
    let mut welcomed = false;
    while acknowledged < reports {
        let answer = tokio::time::timeout(common::LONG, answers.message()).await;
        match answer.unwrap().unwrap().unwrap().message.unwrap() {
            ToAgent::Welcome(welcome) => welcomed = welcome.node == "n1",
            ToAgent::StatusAck(_) => acknowledged += 1,
            ToAgent::Refusal(refusal) => panic!("{refusal:?}"),
            _ => {}
        }
    }
    assert!(welcomed);
    let view = running.get("/v1/nodes/n1").await;
    assert_eq!(view["facts"]["kind"], "virtual", "{view}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_gateway_is_served() {
    let running = Running::start().await;
    let (say, messages) = mpsc::channel(64);
    for message in read::<GatewayMessage>("gateway-to-coordinator.bin") {
        say.send(message).await.unwrap();
    }
    let mut tables = follow(&running, messages).await;
    let first = tokio::time::timeout(common::LONG, tables.message()).await;
    let first = first.unwrap().unwrap().unwrap();
    serde_json::from_slice::<Table>(&first.table_json).unwrap();
    let list = running.get("/v1/gateways").await;
    assert_eq!(list["items"][0]["name"], "edge-1");
    assert_eq!(list["items"][0]["connected"], true, "{list}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_coordinators_tables_are_served_by() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let gateway = berth_gateway::Gateway::bind(berth_gateway::GatewayConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        admin_listen: "127.0.0.1:0".parse().unwrap(),
        threads: 1,
        ..berth_gateway::GatewayConfig::default()
    })
    .unwrap();
    let mut instances = 0;
    for message in read::<RouteMessage>("coordinator-to-gateway.bin") {
        let table: Table = serde_json::from_slice(&message.table_json).unwrap();
        let routes = table.services.values().flat_map(|s| s.revisions.values());
        instances += routes.map(|r| r.instances.len()).sum::<usize>();
        gateway.handle().publish(table).unwrap();
    }
    assert!(instances > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_database_is_opened() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let data = dir.path().join("coordinator");
    std::fs::create_dir(&data).unwrap();
    std::fs::copy(recorded().join("state.db"), data.join(DATABASE_FILE)).unwrap();
    let running = Running::within(dir, |_| {}).await;
    let services = running.get("/v1/services").await;
    assert_eq!(services["items"][0]["name"], "web", "{services}");
    let nodes = running.get("/v1/nodes").await;
    assert_eq!(nodes["items"][0]["name"], "n1", "{nodes}");
    let models = running.get("/v1/models").await;
    assert_eq!(models["items"][0]["name"], "web", "{models}");
    // And written again.
    let (status, _) = running
        .post("/v1/services/web/scale", &json!({"replicas": 2}))
        .await;
    assert_eq!(status, 200);
    running.stop().await;
}

/// An older program.
struct Older(Child);

impl Older {
    fn start(arguments: &[&std::ffi::OsStr]) -> Self {
        let program = std::env::var_os("BERTH_COORDINATOR").unwrap();
        Self(Command::new(program).args(arguments).spawn().unwrap())
    }

    fn end(mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap();
    }
}

/// A coordinator of this test's for an older gateway.
struct Listening(mpsc::Sender<GatewayMessage>, RouteMessage);

#[tonic::async_trait]
impl Routes for Listening {
    type FollowStream = ReceiverStream<Result<RouteMessage, Status>>;

    async fn follow(
        &self,
        request: Request<Streaming<GatewayMessage>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let (answers, stream) = mpsc::channel(4);
        answers.send(Ok(self.1.clone())).await.unwrap();
        let (said, mut inbound) = (self.0.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(message)) = inbound.message().await {
                let _ = said.send(message).await;
            }
            drop(answers);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "makes a recording"]
async fn record() {
    let folder = PathBuf::from(std::env::var_os("BERTH_RECORD").unwrap());
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let data = dir.path().join("coordinator");
    let older = Older::start(&[
        "--data".as_ref(),
        data.as_os_str(),
        "--listen".as_ref(),
        "127.0.0.1:0".as_ref(),
    ]);
    let endpoint = data.join("endpoint");
    let address: SocketAddr = until(async || {
        let text = std::fs::read_to_string(&endpoint).ok()?;
        text.trim().parse().ok()
    })
    .await;
    // Everything below talks to the older one.
    let mut running = Running::start().await;
    (running.dir, running.address) = (dir, address);
    let (to_agent, mut to_gateway) = record_coordinator(&running).await;
    write(&folder, "coordinator-to-agent.bin", &to_agent);
    write(&folder, "coordinator-to-gateway.bin", &to_gateway);
    older.end();
    std::fs::copy(data.join(DATABASE_FILE), folder.join("state.db")).unwrap();
    record_gateway(&folder, &data, to_gateway.pop().unwrap()).await;
}

/// What a coordinator says to an agent and a gateway while a service comes and goes.
async fn record_coordinator(running: &Running) -> (Vec<CoordinatorMessage>, Vec<RouteMessage>) {
    let node = running.node("n1").await;
    running.push("web", "1.0.0").await;
    let deploy = json!({"model": "web", "replicas": 1});
    assert!(running.post("/v1/services", &deploy).await.0 < 300);
    let (say, mut answers) = session(running, &node).await;
    say.send(word(FromAgent::Hello(Hello {
        facts: Some(facts("n1")),
        incarnation: "one".to_owned(),
        ..Hello::default()
    })))
    .await
    .unwrap();
    let (out, messages) = mpsc::channel(16);
    let hello = GatewayMessage {
        hello: Some(GatewayHello {
            name: "edge-1".to_owned(),
            url: "http://127.0.0.1:1".to_owned(),
            ..GatewayHello::default()
        }),
        ..GatewayMessage::default()
    };
    out.send(hello).await.unwrap();
    let mut tables = follow(running, messages).await;
    let (mut to_agent, mut to_gateway) = (Vec::new(), Vec::new());
    let mut told = false;
    // Until the instance was in the table, and is to stop.
    while !to_agent.iter().any(stops) {
        tokio::select! {
            message = answers.message() => {
                let message = message.unwrap().unwrap();
                if let Some(ToAgent::Desired(set)) = &message.message {
                    obey(&say, set).await;
                }
                to_agent.push(message);
            }
            message = tables.message() => {
                let message = message.unwrap().unwrap();
                let table: Table = serde_json::from_slice(&message.table_json).unwrap();
                if !told && String::from_utf8_lossy(&message.table_json).contains(ADDRESS) {
                    told = true;
                    let scale = json!({"replicas": 0});
                    assert!(running.post("/v1/services/web/scale", &scale).await.0 < 300);
                }
                // What it has, so that the instance may be stopped.
                let report = berth_model::gateway::GatewayReport {
                    acknowledged: table.version,
                    ..Default::default()
                };
                let report = GatewayMessage {
                    report: Some(report.into()),
                    ..GatewayMessage::default()
                };
                out.send(report).await.unwrap();
                to_gateway.push(message);
            }
        }
    }
    (to_agent, to_gateway)
}

fn word(message: FromAgent) -> AgentMessage {
    AgentMessage {
        message: Some(message),
    }
}

/// Takes a set over and reports its instances as healthy.
async fn obey(say: &mpsc::Sender<AgentMessage>, set: &DesiredSet) {
    let ack = DesiredAck {
        order: set.order,
        refused: String::new(),
    };
    let report = StatusReport {
        seq: 1,
        instances: set.instances.iter().map(|i| status(&i.id)).collect(),
        ..StatusReport::default()
    };
    for message in [FromAgent::DesiredAck(ack), FromAgent::Status(report)] {
        say.send(word(message)).await.unwrap();
    }
}

fn stops(message: &CoordinatorMessage) -> bool {
    match &message.message {
        Some(ToAgent::Desired(set)) => set.instances.iter().any(|i| i.intent == "stop"),
        _ => false,
    }
}

fn status(id: &str) -> InstanceStatus {
    InstanceStatus {
        id: id.to_owned(),
        phase: "healthy".to_owned(),
        start: 1,
        address: ADDRESS.to_owned(),
        since_unix_ms: 1,
        ..InstanceStatus::default()
    }
}

/// What the older gateway says, to a coordinator with the older one's keys.
async fn record_gateway(folder: &Path, data: &Path, table: RouteMessage) {
    let (said, mut heard) = mpsc::channel(64);
    let text = |name| std::fs::read_to_string(data.join(name)).unwrap();
    let tls =
        ServerTlsConfig::new().identity(Identity::from_pem(text("server.crt"), text("server.key")));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let server = Server::builder().tls_config(tls).unwrap();
    let mut server = server;
    let routes = server.add_service(RoutesServer::new(Listening(said, table)));
    tokio::spawn(routes.serve_with_incoming(TcpListenerStream::new(listener)));
    let home = data.with_file_name("gateway");
    let (ca, token) = (data.join("ca.crt"), data.join("gateway.token"));
    let older = Older::start(&[
        "--role".as_ref(),
        "gateway".as_ref(),
        "--name".as_ref(),
        "edge-1".as_ref(),
        "--listen".as_ref(),
        "127.0.0.1:0".as_ref(),
        "--admin-listen".as_ref(),
        "127.0.0.1:0".as_ref(),
        "--endpoint".as_ref(),
        endpoint.as_ref(),
        "--data".as_ref(),
        home.as_ref(),
        "--ca-file".as_ref(),
        ca.as_ref(),
        "--token-file".as_ref(),
        token.as_ref(),
    ]);
    let mut messages: Vec<GatewayMessage> = Vec::new();
    // Its hello, and reports until one acknowledges the table.
    while messages.len() < 4 {
        messages.push(heard.recv().await.unwrap());
    }
    older.end();
    write(folder, "gateway-to-coordinator.bin", &messages);
}
