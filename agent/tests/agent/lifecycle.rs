//! From a desired set to a healthy instance and back to nothing.

use std::time::{Duration, Instant};

use berth_model::instance::{Phase, Reason};
use berth_proto::v1;
use berth_proto::v1::coordinator_message::Message as Down;

use crate::coordinator::Coordinator;
use crate::module::ask;
use crate::node::{Node, Package, alive, order, pid_at, stopping};
use crate::wait::until_true;

const ID: &str = "web.1.0.1";

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_starts_serves_logs_stops_and_is_forgotten() {
    let coordinator = Coordinator::start().await;
    let package = Package::quick(&coordinator);
    let spec = package.spec(ID, "serve");
    coordinator.desire(order(1), std::slice::from_ref(&spec));
    let node = Node::running(&coordinator);
    let hello = coordinator.hello(1).await;
    assert_eq!((hello.accepted, hello.instances.len()), (None, 0));
    assert_eq!(hello.facts.unwrap().kind, "virtual");
    let healthy = coordinator.phase(ID, Phase::Healthy).await;
    assert_eq!(
        (healthy.start, healthy.restarts, healthy.reason.clone()),
        (1, 0, None)
    );
    assert_eq!(healthy.digest, Some(package.summary.digest));
    let address = healthy.address.unwrap();
    let body = ask(address, "/").unwrap();
    assert_eq!(body, format!("{} {ID} 7", healthy.pid.unwrap()));
    assert_eq!(coordinator.with(|state| state.acks[0].refused.clone()), "");
    until_true("its first line", || {
        !coordinator.lines(ID, "module begins").is_empty()
    })
    .await;
    until_true("statistics", || {
        coordinator.with(|state| state.statistics) > 2
    })
    .await;
    coordinator.send(Down::Ping(v1::Ping { nonce: 9 }));
    until_true("a pong", || coordinator.with(|state| state.pongs == [9])).await;

    coordinator.desire(order(2), &[stopping(&spec)]);
    let stopped = coordinator.phase(ID, Phase::Stopped).await;
    assert_eq!(stopped.reason, Some(Reason::StopRequested));
    assert!(!alive(healthy.pid.unwrap()));
    assert!(node.data().join("instances").join(ID).exists());
    coordinator.desire(order(3), &[]);
    coordinator.forgotten(ID).await;
    assert!(!node.data().join("instances").join(ID).exists());
    assert_eq!(coordinator.lines(ID, "module begins").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn older_and_conflicting_sets_are_refused_also_after_a_restart() {
    let coordinator = Coordinator::start().await;
    let package = Package::quick(&coordinator);
    let spec = package.spec(ID, "serve");
    let mut node = Node::running(&coordinator);
    coordinator.hello(1).await;
    coordinator.desire(order(5), std::slice::from_ref(&spec));
    coordinator.phase(ID, Phase::Healthy).await;
    coordinator.desire(order(4), &[]);
    let acks = coordinator.acked(2).await;
    assert!(acks[1].refused.starts_with("stale: "), "{acks:?}");
    node.kill();
    coordinator.desire(order(5), &[]);
    node.run();
    let hello = coordinator.hello(2).await;
    assert_eq!(hello.accepted.unwrap().generation, 5);
    let acks = coordinator.acked(3).await;
    assert!(acks[2].refused.starts_with("conflict: "), "{acks:?}");
    coordinator.phase(ID, Phase::Healthy).await;
    let mut invalid = v1::InstanceSpec::from(spec);
    invalid.digest = "nonsense".into();
    let set = v1::DesiredSet {
        order: Some(order(6).into()),
        instances: vec![invalid],
    };
    coordinator.send(Down::Desired(set));
    let acks = coordinator.acked(4).await;
    assert!(
        acks[3]
            .refused
            .starts_with("invalid: instances[0]: field digest"),
        "{acks:?}"
    );
    coordinator.phase(ID, Phase::Healthy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_share_a_node_and_an_exclusive_one_takes_turns() {
    let coordinator = Coordinator::start().await;
    let package = Package::quick(&coordinator);
    let (a, b) = (
        package.spec("a.1.0.1", "serve"),
        package.spec("b.1.0.1", "serve"),
    );
    coordinator.desire(order(1), &[a.clone(), b.clone()]);
    let mut node = Node::running(&coordinator);
    let one = coordinator
        .phase("a.1.0.1", Phase::Healthy)
        .await
        .address
        .unwrap();
    let two = coordinator
        .phase("b.1.0.1", Phase::Healthy)
        .await
        .address
        .unwrap();
    assert_ne!(one, two);
    assert_eq!(
        coordinator.with(|state| state.fetches.len()),
        1,
        "one package, fetched once"
    );
    coordinator.desire(order(2), &[]);
    coordinator.forgotten("a.1.0.1").await;
    coordinator.forgotten("b.1.0.1").await;
    node.kill();
    let mut config = std::fs::read_to_string(node.data().join("../agent.toml")).unwrap();
    config = config.replace("exclusive = false", "exclusive = true");
    std::fs::write(node.data().join("../agent.toml"), config).unwrap();
    node.run();
    coordinator.hello(2).await;
    let (c, d) = (
        package.spec("c.1.0.1", "serve"),
        package.spec("d.1.0.1", "serve"),
    );
    coordinator.desire(order(3), &[c.clone(), d.clone()]);
    coordinator.phase("c.1.0.1", Phase::Healthy).await;
    let waits = coordinator.phase("d.1.0.1", Phase::Assigned).await;
    assert!(waits.reason.unwrap().to_string().contains("c.1.0.1"));
    coordinator.desire(order(4), &[stopping(&c), d]);
    coordinator.phase("d.1.0.1", Phase::Healthy).await;
    coordinator.phase("c.1.0.1", Phase::Stopped).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_transfer_goes_on_where_it_ended() {
    let coordinator = Coordinator::start().await;
    let health = "http = \"/healthz\"\ninterval = \"100ms\"";
    let package = Package::new(&coordinator, health, 300_000);
    coordinator.with(|state| state.fetch_limit = Some(100_000));
    coordinator.desire(order(1), &[package.spec(ID, "serve")]);
    let node = Node::running(&coordinator);
    coordinator.phase(ID, Phase::Healthy).await;
    let fetches = coordinator.with(|state| state.fetches.clone());
    assert!(
        fetches.len() >= 3 && fetches.is_sorted() && fetches[1] >= 100_000,
        "{fetches:?}"
    );
    let left = std::fs::read_dir(node.data().join("blobs"))
        .unwrap()
        .count();
    assert_eq!(left, 0, "the archive is not kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_is_not_what_it_should_be_is_reported_and_not_tried_in_a_loop() {
    let coordinator = Coordinator::start().await;
    let package = Package::quick(&coordinator);
    let mut spec = package.spec(ID, "serve");
    spec.digest = berth_model::digest::PackageDigest::from_bytes([1; 32]);
    let mut absent = package.spec("web.1.1.1", "serve");
    absent.digest = berth_model::digest::PackageDigest::from_bytes([2; 32]);
    absent.blob = berth_model::digest::BlobDigest::from_bytes([2; 32]);
    coordinator.desire(order(1), &[spec, absent]);
    let node = Node::running(&coordinator);
    let failed = coordinator
        .status(ID, |status| status.reason.is_some())
        .await;
    assert_eq!(failed.phase, Phase::Preparing);
    let reason = failed.reason.unwrap();
    assert!(
        matches!(&reason, Reason::Package { error } if error.contains("wrong digest")),
        "{reason}"
    );
    let missing = coordinator
        .status("web.1.1.1", |status| status.reason.is_some())
        .await
        .reason
        .unwrap();
    assert!(
        missing.to_string().contains("push the package again"),
        "{missing}"
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(coordinator.with(|state| state.fetches.len()), 2);
    assert_eq!(
        std::fs::read_dir(node.data().join("packages"))
            .unwrap()
            .count(),
        0
    );
    assert!(!package.bytes.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_agent_leaves_its_instances_and_stop_instances_ends_them() {
    let coordinator = Coordinator::start().await;
    let package = Package::quick(&coordinator);
    coordinator.desire(
        order(1),
        &[
            package.spec("a.1.0.1", "serve"),
            package.spec("b.1.0.1", "serve"),
        ],
    );
    let mut node = Node::running(&coordinator);
    let a = coordinator
        .phase("a.1.0.1", Phase::Healthy)
        .await
        .address
        .unwrap();
    let b = coordinator
        .phase("b.1.0.1", Phase::Healthy)
        .await
        .address
        .unwrap();
    let refused = node.stop_instances();
    assert!(!refused.status.success(), "the agent has the folder");
    let begin = Instant::now();
    assert!(node.terminate());
    assert!(
        begin.elapsed() < Duration::from_secs(3),
        "{:?}",
        begin.elapsed()
    );
    let pids = [pid_at(a), pid_at(b)];
    let stopped = node.stop_instances();
    assert_eq!(
        String::from_utf8_lossy(&stopped.stdout),
        "stopped 2 instances, 0 of them by force\n"
    );
    assert!(pids.iter().all(|pid| !alive(*pid)));
    // The wish stands: run again, the agent starts them again, and it is no restart.
    node.run();
    let again = coordinator
        .status("a.1.0.1", |s| s.start == 2 && s.phase == Phase::Healthy)
        .await;
    assert_eq!(again.restarts, 0);
}
