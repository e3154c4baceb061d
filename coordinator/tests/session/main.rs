//! Agents' sessions, archives and logs, over real mutual TLS.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails"
)]

#[path = "../common/mod.rs"]
mod common;
mod logs;

use berth_proto::v1::agent_message::Message as FromAgent;
use berth_proto::v1::coordinator_message::Message;
use berth_proto::v1::{
    AgentMessage, Condition, CoordinatorMessage, DesiredAck, DesiredSet, FetchBlobRequest, Hello,
    InstanceStatistics, InstanceStatus, Pong, Statistics, StatusReport,
};
use common::{Node, Running, code, facts};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

const BOOT: &str = "0f3a1c52-9a8e-4c1b-8f5e-5f7c6b1d2e3f";

struct Agent {
    out: mpsc::Sender<AgentMessage>,
    inbound: Streaming<CoordinatorMessage>,
}

impl Agent {
    async fn connect(running: &Running, node: &Node, first: FromAgent) -> Self {
        let (out, messages) = mpsc::channel(16);
        out.send(message(first)).await.unwrap();
        let mut client = running.agents(node).await;
        let answer = client.session(ReceiverStream::new(messages)).await.unwrap();
        Self {
            out,
            inbound: answer.into_inner(),
        }
    }

    async fn welcomed(running: &Running, node: &Node, incarnation: &str) -> Self {
        let mut agent = Self::connect(running, node, hello(node, incarnation)).await;
        let Message::Welcome(welcome) = agent.next().await else {
            panic!("no welcome");
        };
        assert_eq!(welcome.node, node.name);
        assert_eq!((welcome.heartbeat_ms, welcome.lease_ms), (5_000, 30_000));
        agent
    }

    async fn say(&self, word: FromAgent) {
        self.out.send(message(word)).await.unwrap();
    }

    async fn try_next(&mut self) -> Result<Option<Message>, Status> {
        let next = tokio::time::timeout(common::LONG, self.inbound.message());
        Ok(next
            .await
            .expect("an answer in time")?
            .and_then(|word| word.message))
    }

    async fn next(&mut self) -> Message {
        self.try_next().await.unwrap().unwrap()
    }

    /// The next desired set that has instances; acknowledged.
    async fn desired(&mut self) -> DesiredSet {
        loop {
            if let Message::Desired(set) = self.next().await {
                let ack = DesiredAck {
                    order: set.order,
                    refused: String::new(),
                };
                self.say(FromAgent::DesiredAck(ack)).await;
                if !set.instances.is_empty() {
                    return set;
                }
            }
        }
    }
}

fn message(word: FromAgent) -> AgentMessage {
    AgentMessage {
        message: Some(word),
    }
}

fn hello(node: &Node, incarnation: &str) -> FromAgent {
    FromAgent::Hello(Hello {
        facts: Some(facts(&node.name)),
        incarnation: incarnation.to_owned(),
        ..Hello::default()
    })
}

fn healthy(id: &str) -> InstanceStatus {
    InstanceStatus {
        id: id.to_owned(),
        phase: "healthy".to_owned(),
        start: 1,
        address: "127.0.0.1:21000".to_owned(),
        since_unix_ms: 1,
        ..InstanceStatus::default()
    }
}

/// What a node says of itself in the middle of a session.
async fn changed_facts_are_shown(running: &Running, agent: &mut Agent, node: &Node) {
    let mut changed = facts(&node.name);
    changed.conditions.push(Condition {
        kind: "docker".to_owned(),
        message: "the daemon does not answer".to_owned(),
    });
    agent
        .say(FromAgent::Status(StatusReport {
            seq: 8,
            facts: Some(changed),
            ..StatusReport::default()
        }))
        .await;
    while !matches!(agent.next().await, Message::StatusAck(ack) if ack.seq == 8) {}
    let view = running.get("/v1/nodes/n1").await;
    assert_eq!(view["facts"]["conditions"][0]["kind"], "docker", "{view}");
    let status = running.get("/v1/status").await;
    let mut problems = status["problems"].as_array().unwrap().iter();
    let problem = problems.find(|problem| problem["subject"] == "node/n1");
    let message = &problem.unwrap()["message"];
    assert_eq!(message, "docker: the daemon does not answer", "{status}");
}

/// What modules say, with Berth's labels, as long as they run; nothing of instances that are not the agent's.
async fn metrics_are_republished(running: &Running, agent: &Agent) {
    let said = |id: &str, metrics: &str| InstanceStatistics {
        id: id.to_owned(),
        metrics: metrics.to_owned(),
        ..InstanceStatistics::default()
    };
    let say = async |instances: Vec<InstanceStatistics>, wanted: &str| {
        let statistics = Statistics {
            instances,
            ..Statistics::default()
        };
        agent.say(FromAgent::Statistics(statistics)).await;
        let begin = std::time::Instant::now();
        loop {
            let answer = running.request("GET", "/metrics/modules").send().await;
            let text = answer.unwrap().text().await.unwrap();
            if text == wanted {
                return;
            }
            assert!(begin.elapsed().as_secs() < 30, "{text}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let text = "# TYPE runs counter\nruns{version=\"9\"} 3\n";
    let wanted = "# TYPE runs counter\nruns{exported_version=\"9\",service=\"web\",revision=\"1\",\
                  instance=\"web.1.0.1\",node=\"n1\",model=\"web\",version=\"1.0.0\"} 3\n";
    say(
        vec![said("web.1.0.1", text), said("web.1.7.1", text)],
        wanted,
    )
    .await;
    // Nothing new is not nothing.
    say(vec![said("web.1.0.1", "")], wanted).await;
    say(Vec::new(), "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_reaches_the_agent_and_its_reports_reach_the_admin() {
    let running = Running::start().await;
    let node = running.node("n1").await;
    let mut agent = Agent::welcomed(&running, &node, "one").await;
    let model = running.push("web", "1.0.0").await;
    let (status, service) = running.post("/v1/services", &json!({"model": "web"})).await;
    assert_eq!(status, 200, "{service}");
    let set = agent.desired().await;
    let spec = &set.instances[0];
    assert_eq!(
        (spec.id.as_str(), spec.intent.as_str()),
        ("web.1.0.1", "run")
    );
    assert_eq!(spec.digest, model["digest"].as_str().unwrap());

    let mut watching = running
        .request("GET", "/v1/services/web/watch")
        .send()
        .await
        .unwrap();
    agent
        .say(FromAgent::Status(StatusReport {
            seq: 7,
            instances: vec![healthy("web.1.0.1")],
            forgotten: Vec::new(),
            facts: None,
        }))
        .await;
    let acknowledged = loop {
        if let Message::StatusAck(ack) = agent.next().await {
            break ack.seq;
        }
    };
    assert_eq!(acknowledged, 7);
    let mut seen = String::new();
    while !seen.contains("\"state\":\"ready\"") {
        let chunk = watching.chunk().await.unwrap().expect("the watch goes on");
        seen.push_str(&String::from_utf8_lossy(&chunk));
    }
    let node_view = running.get("/v1/nodes/n1").await;
    assert_eq!(node_view["state"], "ready", "{node_view}");
    changed_facts_are_shown(&running, &mut agent, &node).await;
    metrics_are_republished(&running, &agent).await;
    running.stop().await;
    assert_eq!(
        agent.try_next().await.unwrap_err().code(),
        Code::Unavailable
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_begins_with_a_hello_and_names_what_it_cannot_read() {
    let running = Running::start().await;
    let node = running.node("n1").await;
    let first = FromAgent::Pong(Pong { nonce: 1 });
    let mut agent = Agent::connect(&running, &node, first).await;
    let refused = agent.try_next().await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);

    let bad = FromAgent::Hello(Hello {
        instances: vec![healthy("../etc")],
        ..Hello::default()
    });
    let mut agent = Agent::connect(&running, &node, bad).await;
    let refused = agent.try_next().await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("field id"), "{refused}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_machine_with_the_same_key_is_refused_while_the_first_answers() {
    let running = Running::start().await;
    let node = running.node("n1").await;
    let mut first = Agent::welcomed(&running, &node, "one").await;
    let answering = tokio::spawn(async move {
        while let Ok(Some(word)) = first.try_next().await {
            if let Message::Ping(ping) = word {
                let pong = Pong { nonce: ping.nonce };
                first.say(FromAgent::Pong(pong)).await;
            }
        }
    });
    let mut second = Agent::connect(&running, &node, hello(&node, "two")).await;
    let Message::Refusal(refusal) = second.next().await else {
        panic!("no refusal");
    };
    assert_eq!(refusal.code, "key-in-use", "{}", refusal.message);
    assert!(second.try_next().await.unwrap().is_none());
    running.stop().await;
    answering.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_nodes_sessions_are_refused() {
    let running = Running::start().await;
    let node = running.node("n1").await;
    let mut agent = Agent::welcomed(&running, &node, "one").await;
    let path = "/v1/nodes/n1";
    let removed = running.request("DELETE", path).send().await.unwrap();
    assert_eq!(removed.status(), 200);
    let refusal = loop {
        if let Message::Refusal(refusal) = agent.next().await {
            break refusal;
        }
    };
    assert_eq!(refusal.code, "removed", "{}", refusal.message);
    assert!(agent.try_next().await.unwrap().is_none());
    let mut agent = Agent::connect(&running, &node, hello(&node, "one")).await;
    let Message::Refusal(refusal) = agent.next().await else {
        panic!("no refusal");
    };
    assert_eq!(refusal.code, "removed", "{}", refusal.message);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_fetched_from_any_offset() {
    let running = Running::start().await;
    let node = running.node("n1").await;
    running.push("web", "1.0.0").await;
    let whole = common::package(running.dir.path(), "web", "1.0.0");
    let blob = format!("blake3:{}", blake3::hash(&whole).to_hex());
    let mut client = running.agents(&node).await;
    for offset in [0, 1, whole.len() - 1, whole.len()] {
        let request = FetchBlobRequest {
            blob: blob.clone(),
            offset: offset as u64,
            ..Default::default()
        };
        let mut chunks = client.fetch_blob(request).await.unwrap().into_inner();
        let mut got = Vec::new();
        while let Some(chunk) = chunks.message().await.unwrap() {
            got.extend_from_slice(&chunk.data);
        }
        assert_eq!(got, whole[offset..], "from {offset}");
    }
    let behind = FetchBlobRequest {
        blob,
        offset: whole.len() as u64 + 1,
        ..Default::default()
    };
    assert_eq!(code(client.fetch_blob(behind).await), Code::OutOfRange);
    // Uploaded, but no model's: not for nodes.
    let unregistered = FetchBlobRequest {
        blob: running.upload(b"something").await,
        offset: 0,
        ..Default::default()
    };
    assert_eq!(code(client.fetch_blob(unregistered).await), Code::NotFound);
    running.stop().await;
}
