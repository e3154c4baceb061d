//! Logs, as agents send and people read them; and a service's watch.

use berth_logfile::{Frame, Stream};
use berth_proto::v1::{LogAck, LogBatch};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::common::{self, Node, Running};
use super::{Agent, BOOT};

fn frames(lines: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let frame = Frame {
            time: 1_000 + i as u64,
            stream: Stream::Stdout,
            process: 0,
            flags: 0,
            payload: line.as_bytes(),
        };
        frame.encode(&mut bytes);
    }
    bytes
}

struct Shipper {
    out: mpsc::Sender<LogBatch>,
    acks: Streaming<LogAck>,
}

impl Shipper {
    async fn connect(running: &Running, node: &Node) -> Self {
        let (out, batches) = mpsc::channel(16);
        let mut client = running.agents(node).await;
        let answer = client
            .ship_logs(ReceiverStream::new(batches))
            .await
            .unwrap();
        Self {
            out,
            acks: answer.into_inner(),
        }
    }

    async fn ship(&mut self, instance: &str, offset: usize, frames: &[u8], hole: bool) -> LogAck {
        let batch = LogBatch {
            instance: instance.to_owned(),
            start: 1,
            boot_id: BOOT.to_owned(),
            offset: offset as u64,
            frames: frames.to_vec().into(),
            hole,
        };
        self.out.send(batch).await.unwrap();
        self.acks.message().await.unwrap().unwrap()
    }
}

/// The texts of the lines that the API gives.
async fn lines(running: &Running, query: &str) -> Vec<String> {
    let path = format!("/v1/logs?{query}");
    let answer = running.request("GET", &path).send().await.unwrap();
    let text = answer.text().await.unwrap();
    assert!(text.contains("event: end"), "{text}");
    text.lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter_map(|data| {
            let line: serde_json::Value = serde_json::from_str(data).unwrap();
            Some(line["text"].as_str()?.to_owned())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_kept_once_however_often_they_are_sent() {
    let running = Running::start().await;
    let node = running.node("n1").await;
    let all = frames(&["one", "two", "three"]);
    let first = frames(&["one"]).len();
    let mut shipper = Shipper::connect(&running, &node).await;
    let ack = shipper.ship("web.1.0.1", 0, &[], false).await;
    assert_eq!((ack.durable, ack.error.as_str()), (0, ""));
    let ack = shipper.ship("web.1.0.1", 0, &all[..first], false).await;
    assert_eq!(ack.durable, first as u64);
    for _ in 0..2 {
        let ack = shipper.ship("web.1.0.1", 0, &all, false).await;
        assert_eq!((ack.durable, ack.error.as_str()), (all.len() as u64, ""));
    }
    assert_eq!(
        lines(&running, "service=web").await,
        ["one", "two", "three"]
    );
    assert_eq!(
        lines(&running, "instance=web.1.0.1&grep=t&tail=1").await,
        ["three"]
    );

    let ahead = shipper.ship("web.1.0.1", 10_000, &all, false).await;
    assert_eq!(ahead.durable, all.len() as u64);
    assert!(!ahead.error.is_empty());
    let ahead = shipper.ship("web.1.0.1", 10_000, &all, true).await;
    assert_eq!(
        (ahead.durable, ahead.error.as_str()),
        (10_000 + all.len() as u64, "")
    );
    let bad = shipper
        .ship("web.1.0.1", 10_000 + all.len(), b"rubbish", false)
        .await;
    assert!(!bad.error.is_empty());
    let bad = shipper.ship("../web.1.0.1", 0, &all, false).await;
    assert!(!bad.error.is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_cannot_write_another_nodes_logs() {
    let running = Running::start().await;
    let owner = running.node("n1").await;
    let mut agent = Agent::welcomed(&running, &owner, "one").await;
    running.push("web", "1.0.0").await;
    running.post("/v1/services", &json!({"model": "web"})).await;
    let set = agent.desired().await;
    let id = &set.instances[0].id;
    let other = running.node("n2").await;
    let mut shipper = Shipper::connect(&running, &other).await;
    let ack = shipper.ship(id, 0, &frames(&["forged"]), false).await;
    assert!(ack.error.contains("another node"), "{ack:?}");
    let mut shipper = Shipper::connect(&running, &owner).await;
    let ack = shipper.ship(id, 0, &frames(&["real"]), false).await;
    assert_eq!(ack.error, "");
    assert_eq!(lines(&running, "service=web").await, ["real"]);
    running.stop().await;
}

/// Reads events until one contains the text: everything up to there.
async fn until(answer: &mut reqwest::Response, wanted: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(wanted) {
        let chunk = tokio::time::timeout(common::LONG, answer.chunk()).await;
        let chunk = chunk.expect("an event in time").unwrap();
        seen.push_str(&String::from_utf8_lossy(
            &chunk.expect("the stream goes on"),
        ));
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_followed_and_gone_on_with_where_a_reader_left() {
    let running = Running::start().await;
    let node = running.node("n1").await;
    let mut shipper = Shipper::connect(&running, &node).await;
    let all = frames(&["one", "two", "three"]);
    let (first, second) = (frames(&["one"]).len(), frames(&["one", "two"]).len());
    shipper.ship("web.1.0.1", 0, &all[..first], false).await;
    let path = "/v1/logs?service=web&follow=true";
    let mut following = running.request("GET", path).send().await.unwrap();
    let seen = until(&mut following, "\"text\":\"one\"").await;
    let cursor = seen.lines().find_map(|line| line.strip_prefix("id: "));
    let cursor = cursor.expect("a cursor").to_owned();
    shipper
        .ship("web.1.0.1", first, &all[first..second], false)
        .await;
    until(&mut following, "\"text\":\"two\"").await;
    drop(following);
    shipper
        .ship("web.1.0.1", second, &all[second..], false)
        .await;
    let mut resumed = running
        .request("GET", path)
        .header("last-event-id", cursor)
        .send()
        .await
        .unwrap();
    let seen = until(&mut resumed, "\"text\":\"three\"").await;
    assert!(
        seen.contains("\"two\"") && !seen.contains("\"one\""),
        "{seen}"
    );

    let missing = running.request("GET", "/v1/logs?service=wep").send().await;
    assert_eq!(missing.unwrap().status(), 404);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_with_the_service() {
    let running = Running::start().await;
    running.push("web", "1.0.0").await;
    running.post("/v1/services", &json!({"model": "web"})).await;
    let path = "/v1/services/web/watch";
    let mut watching = running.request("GET", path).send().await.unwrap();
    until(&mut watching, "event: service").await;
    let gone = running.request("DELETE", "/v1/services/web").send().await;
    assert_eq!(gone.unwrap().status(), 202);
    until(&mut watching, "event: deleted").await;
    assert!(
        watching
            .chunk()
            .await
            .unwrap()
            .is_none_or(|rest| rest.is_empty() || rest == "\n")
    );
    running.stop().await;
}
