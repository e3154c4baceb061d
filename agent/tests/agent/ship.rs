//! Logs over a connection that keeps breaking, and what an idle agent costs.

use std::time::Duration;

use berth_model::instance::Phase;

use crate::coordinator::Coordinator;
use crate::module::ask;
use crate::node::{Node, Package, order};
use crate::wait::until_true;

const ID: &str = "web.1.0.1";

#[tokio::test(flavor = "multi_thread")]
async fn no_line_is_lost_or_doubled_over_broken_calls_and_sessions() {
    let mut coordinator = Coordinator::start().await;
    let package = Package::quick(&coordinator);
    coordinator.desire(order(1), &[package.spec(ID, "serve")]);
    let node = Node::running(&coordinator);
    let address = coordinator.phase(ID, Phase::Healthy).await.address.unwrap();
    // Every third batch is stored, and its acknowledgement lost with the call.
    coordinator.with(|state| state.ship_limit = Some(2));
    for round in 0..10u64 {
        ask(
            address,
            &format!("/log?{}-{}", round * 1000, (round + 1) * 1000),
        )
        .unwrap();
        if round % 4 == 1 {
            coordinator.restart().await;
        }
    }
    until_true("all lines", || {
        coordinator.lines(ID, "line ").len() >= 10_000
    })
    .await;
    coordinator.with(|state| state.ship_limit = None);
    let expected: Vec<String> = (0..10_000).map(|i| format!("line {i}")).collect();
    assert!(
        coordinator.lines(ID, "line ") == expected,
        "lines are lost, doubled or out of order"
    );
    // What is shipped does not stay: 10,000 lines are some 20 segments.
    let logs = node.data().join("instances").join(ID).join("starts/1/logs");
    ask(address, "/log?0-3000").unwrap();
    until_true("deleted segments", || {
        std::fs::read_dir(&logs).unwrap().count() <= 16
    })
    .await;
}

/// The processor time of a process in clock ticks.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit_once(") ")
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_agent_sleeps() {
    let coordinator = Coordinator::start().await;
    let health = "http = \"/healthz\"\ninterval = \"2s\"";
    let package = Package::new(&coordinator, health, 0);
    coordinator.desire(order(1), &[package.spec(ID, "serve")]);
    let node = Node::running(&coordinator);
    coordinator.phase(ID, Phase::Healthy).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = ticks(node.agent_pid());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let used = ticks(node.agent_pid()) - before;
    // Ten milliseconds a tick: a loop that spins would use hundreds. (The figure for an optimised build is
    // measured by the benchmark.)
    assert!(used <= 15, "{used} ticks in five seconds of nothing to do");
}
