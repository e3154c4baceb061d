//! Joining and renewing.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use berth_proto::v1;

use crate::coordinator::Coordinator;
use crate::node::Node;
use crate::wait::{until, until_true};

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_not_sent_to_a_server_with_another_ca() {
    let (ours, other) = (Coordinator::start().await, Coordinator::start().await);
    let node = Node::new();
    let output = node.join(&other.endpoint(), &ours.token());
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        told.contains("does not present the CA that the join token names"),
        "{told}"
    );
    assert_eq!(other.with(|state| state.joins), 0);
    assert!(!node.data().join("identity/node.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_and_keeps_its_key_to_itself() {
    let coordinator = Coordinator::start().await;
    let node = Node::new();
    let wrong = coordinator.token().replace("s3cret", "guess");
    let refused = node.join(&coordinator.endpoint(), &wrong);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("unknown token"));
    let key = node.data().join("identity/node.key");
    let made = std::fs::read(&key).unwrap();
    let joined = node.join(&coordinator.endpoint(), &coordinator.token());
    assert_eq!(String::from_utf8_lossy(&joined.stdout), "joined as n1\n");
    assert_eq!(
        std::fs::read(&key).unwrap(),
        made,
        "the first attempt's key is used again"
    );
    assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // Another fleet's token is refused before anything is asked.
    let other = Coordinator::start().await;
    let refused = node.join(&other.endpoint(), &other.token());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("of another fleet"));
    assert_eq!(other.with(|state| state.joins), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_is_renewed_and_sessions_go_on_past_its_first_life() {
    let mut coordinator = Coordinator::start().await;
    coordinator.with(|state| {
        state.certificate_life = Duration::from_secs(3);
        state.renew_after_ms = 2_000;
    });
    let _node = Node::running(&coordinator);
    coordinator.hello(1).await;
    until_true("two renewals", || {
        coordinator.with(|state| state.renewals) >= 2
    })
    .await;
    // By now the first certificate has expired: a new session needs a renewed one.
    coordinator.restart().await;
    coordinator.hello(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_renewed() {
    let coordinator = Coordinator::start().await;
    coordinator.with(|state| state.certificate_life = Duration::from_secs(1));
    let mut node = Node::joined(&coordinator);
    coordinator.with(|state| state.certificate_life = Duration::from_secs(3600));
    tokio::time::sleep(Duration::from_millis(2100)).await;
    node.run();
    coordinator.hello(1).await;
    assert!(coordinator.with(|state| state.renewals) >= 1);
}

/// Whatever this machine thinks of it: the coordinator's clock may be another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_only_the_coordinator_finds_expired_is_renewed() {
    let coordinator = Coordinator::start().await;
    coordinator.with(|state| {
        state.certificate_life = Duration::from_secs(1);
        state.renew_after_ms = 3_600_000;
    });
    let mut node = Node::joined(&coordinator);
    coordinator.with(|state| state.certificate_life = Duration::from_secs(3600));
    tokio::time::sleep(Duration::from_millis(2100)).await;
    node.run();
    coordinator.hello(1).await;
    assert!(coordinator.with(|state| state.renewals) >= 1);
    let log = node.log();
    assert!(log.contains("certificate has expired"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_machine_with_the_same_key_backs_off_and_says_so() {
    let coordinator = Coordinator::start().await;
    let refusal = v1::Refusal {
        code: "key-in-use".into(),
        message: "another machine is n1".into(),
    };
    coordinator.with(|state| state.refusal = Some(refusal));
    let node = Node::running(&coordinator);
    coordinator.hello(1).await;
    let log = until("a word in the log", || {
        let log = node.log();
        if log.contains("key-in-use") {
            Ok(log)
        } else {
            Err(log)
        }
    })
    .await;
    assert!(log.contains("another machine is n1"), "{log}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(coordinator.with(|state| state.hellos.len()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_joining_the_agent_says_what_to_do() {
    let mut node = Node::new();
    node.run();
    let log = until("a word in the log", || {
        let log = node.log();
        if log.contains("berth-agent join") {
            Ok(log)
        } else {
            Err(log)
        }
    })
    .await;
    assert!(log.contains("has not joined"), "{log}");
}
