//! Modules that misbehave: each in a named state, with its reason, and nothing left behind.

use berth_model::instance::{Phase, Reason};

use crate::coordinator::Coordinator;
use crate::module::ask;
use crate::node::{Node, Package, alive, order, stopping};
use crate::wait::until_true;

const ID: &str = "web.1.0.1";

fn impatient(coordinator: &Coordinator) -> Package {
    let health =
        "http = \"/healthz\"\ninterval = \"100ms\"\nunhealthy_after = 2\nstart_timeout = \"4s\"";
    Package::new(coordinator, health, 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_exits_at_once_backs_off_with_its_code_and_last_words() {
    let coordinator = Coordinator::start().await;
    let package = Package::quick(&coordinator);
    coordinator.desire(order(1), &[package.spec(ID, "exit")]);
    let _node = Node::running(&coordinator);
    let backoff = coordinator
        .status(ID, |s| s.phase == Phase::Backoff && s.restarts >= 2)
        .await;
    assert_eq!(
        backoff.reason,
        Some(Reason::Exited {
            process: "module".into(),
            code: 3
        })
    );
    assert!(
        backoff.last_lines.contains(&"last words".to_owned()),
        "{backoff:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_cannot_be_executed_says_so() {
    let coordinator = Coordinator::start().await;
    let package = Package::quick(&coordinator);
    let mut spec = package.spec(ID, "serve");
    spec.manifest.module.command = vec!["bin/absent".to_owned()];
    coordinator.desire(order(1), &[spec]);
    let _node = Node::running(&coordinator);
    let failed = coordinator.status(ID, |s| s.reason.is_some()).await;
    assert!(
        matches!(&failed.reason, Some(Reason::FailedToStart { process, .. }) if process == "module"),
        "{failed:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_never_answers_is_stopped_when_its_time_is_over() {
    let coordinator = Coordinator::start().await;
    let package = impatient(&coordinator);
    coordinator.desire(order(1), &[package.spec(ID, "silent")]);
    let _node = Node::running(&coordinator);
    let first = coordinator.phase(ID, Phase::Starting).await;
    let failed = coordinator.status(ID, |s| s.reason.is_some()).await;
    let expected = Reason::StartTimeout {
        last_check: "connection refused".into(),
        after_ms: 4000,
    };
    assert_eq!(failed.reason, Some(expected));
    assert!(
        failed.last_lines.contains(&"module begins".to_owned()),
        "{failed:?}"
    );
    if let Some(pid) = first.pid {
        until_true("its end", || !alive(pid)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_listens_elsewhere_is_told_so_while_it_starts() {
    let coordinator = Coordinator::start().await;
    let package = impatient(&coordinator);
    coordinator.desire(order(1), &[package.spec(ID, "wrong-port")]);
    let _node = Node::running(&coordinator);
    let wrong = |s: &berth_model::instance::InstanceStatus, phase| {
        s.phase == phase && matches!(s.reason, Some(Reason::WrongPort { .. }))
    };
    coordinator.status(ID, |s| wrong(s, Phase::Starting)).await;
    coordinator
        .status(ID, |s| wrong(s, Phase::Backoff) || s.restarts > 0)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_ignores_sigterm_is_killed_after_its_grace() {
    let coordinator = Coordinator::start().await;
    let package = Package::quick(&coordinator);
    let spec = package.spec(ID, "ignore-term");
    coordinator.desire(order(1), std::slice::from_ref(&spec));
    let _node = Node::running(&coordinator);
    let healthy = coordinator.phase(ID, Phase::Healthy).await;
    coordinator.desire(order(2), &[stopping(&spec)]);
    let stopped = coordinator.phase(ID, Phase::Stopped).await;
    assert_eq!(stopped.reason, Some(Reason::KilledAfterGrace));
    assert!(!alive(healthy.pid.unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_falls_sick_is_reported_and_may_recover_or_is_restarted() {
    let coordinator = Coordinator::start().await;
    // A long way from unhealthy to the restart, so that there is time to recover.
    let health =
        "http = \"/healthz\"\ninterval = \"100ms\"\nunhealthy_after = 12\nstart_timeout = \"20s\"";
    let package = Package::new(&coordinator, health, 0);
    coordinator.desire(order(1), &[package.spec(ID, "serve")]);
    let _node = Node::running(&coordinator);
    let address = coordinator.phase(ID, Phase::Healthy).await.address.unwrap();
    ask(address, "/sick").unwrap();
    let sick = coordinator.phase(ID, Phase::Unhealthy).await;
    assert!(sick.reason.unwrap().to_string().contains("503"));
    assert!(!sick.last_lines.is_empty());
    ask(address, "/well").unwrap();
    let well = coordinator.phase(ID, Phase::Healthy).await;
    assert_eq!((well.start, well.reason), (1, None));
    ask(address, "/sick").unwrap();
    let again = coordinator
        .status(ID, |s| s.start == 2 && s.phase == Phase::Healthy)
        .await;
    assert!(
        matches!(again.reason, Some(Reason::ChecksFailed { .. })),
        "{again:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_held_by_somebody_else_is_passed_over() {
    let coordinator = Coordinator::start().await;
    let package = Package::quick(&coordinator);
    let mut node = Node::joined(&coordinator);
    let config = std::fs::read_to_string(node.data().join("../agent.toml")).unwrap();
    let first: u16 = config.split("port_range = \"").nth(1).unwrap()[..5]
        .parse()
        .unwrap();
    let _held = std::net::TcpListener::bind(("127.0.0.1", first)).unwrap();
    coordinator.desire(order(1), &[package.spec(ID, "serve")]);
    node.run();
    let healthy = coordinator.phase(ID, Phase::Healthy).await;
    assert_ne!(healthy.address.unwrap().port(), first);
}
