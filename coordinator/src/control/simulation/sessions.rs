//! Sessions of agents: two machines with one key, reconnects, refusals.

use std::time::Duration;

use berth_model::instance::InstanceStatus;
use berth_model::problem::Problem;
use tokio::sync::mpsc;

use super::fleet::Fleet;
use crate::control::testing::facts;
use crate::control::{AgentName, AgentOpened, Command, ConnectionId, Handle, ToAgent};

pub(super) async fn open(
    handle: &Handle,
    incarnation: &str,
    instances: Vec<InstanceStatus>,
) -> (Result<ConnectionId, Problem>, mpsc::Receiver<ToAgent>) {
    let (outbox, inbox) = mpsc::channel(4);
    let opened = AgentOpened {
        agent: AgentName::Node("n0".parse().unwrap()),
        incarnation: incarnation.into(),
        facts: facts(true),
        accepted: None,
        instances,
        outbox,
    };
    let answer = handle
        .ask(|reply| Command::AgentOpened(Box::new(opened), reply))
        .await;
    (answer, inbox)
}

pub(super) async fn kinds(handle: &Handle) -> Vec<String> {
    let (events, _) = handle.ask(|reply| Command::Events(0, reply)).await.unwrap();
    events.into_iter().map(|e| e.kind).collect()
}

#[tokio::test(start_paused = true)]
async fn a_second_machine_with_the_same_key_is_refused() {
    let fleet = Fleet::new(1, true).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (answer, _inbox) = open(&fleet.handle, "copy", Vec::new()).await;
    let problem = answer.unwrap_err();
    assert!(problem.kind.ends_with("key-in-use"), "{problem:?}");
    assert!(
        kinds(&fleet.handle)
            .await
            .contains(&"node-key-in-use".into())
    );
    // The first goes on as before.
    fleet.deploy("dga", 1).await.unwrap();
    fleet.ready().await;
    fleet.check();
}

#[tokio::test(start_paused = true)]
async fn a_dead_session_gives_way() {
    let fleet = Fleet::new(1, true).await;
    fleet.cable(0, false);
    tokio::time::sleep(Duration::from_secs(1)).await;
    // One that holds its connection and never answers.
    let (first, mut silent) = open(&fleet.handle, "dead", Vec::new()).await;
    first.unwrap();
    let began = tokio::time::Instant::now();
    let (second, _inbox) = open(&fleet.handle, "alive", Vec::new()).await;
    second.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2));
    let mut told = Vec::new();
    while let Some(message) = silent.recv().await {
        told.push(match message {
            ToAgent::Desired { .. } => "desired",
            ToAgent::Ping(_) => "ping",
            ToAgent::Refuse(..) => "refuse",
            ToAgent::Callers(..) => "callers",
        });
    }
    assert_eq!(told, ["desired", "callers", "ping", "refuse"]);
}

#[tokio::test(start_paused = true)]
async fn the_same_process_reconnects_and_a_closed_session_gives_way_at_once() {
    let fleet = Fleet::new(1, true).await;
    fleet.cable(0, false);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let began = tokio::time::Instant::now();
    let (first, _inbox1) = open(&fleet.handle, "a", Vec::new()).await;
    let first = first.unwrap();
    let (second, _inbox2) = open(&fleet.handle, "a", Vec::new()).await;
    let second = second.unwrap();
    assert_ne!(first, second);
    // What the replaced connection still says is not taken.
    let late = |reply| Command::AgentStatus(first, Vec::new(), Vec::new(), reply);
    assert_eq!(fleet.handle.ask(late).await.unwrap_err().status, 409);
    fleet.handle.tell(Command::AgentClosed(first)).await;
    let now = |reply| Command::AgentStatus(second, Vec::new(), Vec::new(), reply);
    fleet.handle.ask(now).await.unwrap();
    // Another process while the old one's connection is just closing.
    let handle = fleet.handle.clone();
    let closing = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(30)).await;
        handle.tell(Command::AgentHeard(second)).await;
        handle.tell(Command::AgentClosed(second)).await;
    });
    let (third, _inbox3) = open(&fleet.handle, "b", Vec::new()).await;
    third.unwrap();
    closing.await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(200));
}

#[tokio::test(start_paused = true)]
async fn unknown_nodes_and_refused_sets_are_told() {
    let fleet = Fleet::new(1, true).await;
    let missing = |reply| Command::AgentByKey("other".into(), reply);
    assert_eq!(fleet.handle.ask(missing).await.unwrap_err().status, 404);
    let known = |reply| Command::AgentByKey("key-of-n0".into(), reply);
    assert_eq!(fleet.handle.ask(known).await.unwrap().to_string(), "n0");
    fleet.cable(0, false);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (connection, mut inbox) = open(&fleet.handle, "x", Vec::new()).await;
    let connection = connection.unwrap();
    let Some(ToAgent::Desired { order, .. }) = inbox.recv().await else {
        panic!("no desired set");
    };
    let refused = Some("stale: 9.9.9 is newer".to_owned());
    fleet
        .handle
        .tell(Command::AgentAcknowledged(connection, order, refused))
        .await;
    let status = fleet.handle.ask(Command::Status).await.unwrap();
    assert!(
        status
            .problems
            .iter()
            .any(|p| p.message.contains("stale: 9.9.9")),
        "{status:?}"
    );
    assert!(kinds(&fleet.handle).await.contains(&"node-refused".into()));
}
