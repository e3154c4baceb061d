//! Agents that are killed, and coordinators that are gone.

use berth_model::instance::{Phase, Reason};

use crate::coordinator::Coordinator;
use crate::module::ask;
use crate::node::{Node, Package, alive, order, pid_at};
use crate::wait::{until, until_true};

const ID: &str = "web.1.0.1";

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_finds_its_instances_as_they_were() {
    let coordinator = Coordinator::start().await;
    let package = Package::quick(&coordinator);
    coordinator.desire(order(1), &[package.spec(ID, "serve")]);
    let mut node = Node::running(&coordinator);
    let before = coordinator.phase(ID, Phase::Healthy).await;
    let address = before.address.unwrap();
    for round in 1..=3u64 {
        ask(
            address,
            &format!("/log?{}-{}", (round - 1) * 500, round * 500),
        )
        .unwrap();
        node.kill();
        assert_eq!(pid_at(address), before.pid.unwrap());
        ask(
            address,
            &format!(
                "/log?{}-{}",
                10_000 + round * 100,
                10_000 + (round + 1) * 100
            ),
        )
        .unwrap();
        node.run();
        let hello = coordinator.hello(round as usize + 1).await;
        assert_eq!(hello.instances.len(), 1);
        let told = &hello.instances[0];
        assert_eq!(
            (told.phase.as_str(), told.start, told.restarts),
            ("healthy", 1, 0)
        );
        assert_eq!(
            (told.pid, &told.address),
            (before.pid.unwrap(), &address.to_string())
        );
    }
    until_true("all lines", || coordinator.lines(ID, "line ").len() >= 1800).await;
    let mut expected = Vec::new();
    for round in 1..=3u64 {
        expected.extend((round - 1) * 500..round * 500);
        expected.extend(10_000 + round * 100..10_000 + (round + 1) * 100);
    }
    let expected: Vec<String> = expected.iter().map(|i| format!("line {i}")).collect();
    assert_eq!(
        coordinator.lines(ID, "line "),
        expected,
        "none lost, none doubled, in order"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_no_agent_saw_is_reported_and_made_good() {
    let coordinator = Coordinator::start().await;
    let package = Package::quick(&coordinator);
    coordinator.desire(order(1), &[package.spec(ID, "serve")]);
    let mut node = Node::running(&coordinator);
    let before = coordinator.phase(ID, Phase::Healthy).await;
    node.kill();
    let _ = ask(before.address.unwrap(), "/exit");
    until_true("its end", || !alive(before.pid.unwrap())).await;
    node.run();
    let after = coordinator
        .status(ID, |s| s.start == 2 && s.phase == Phase::Healthy)
        .await;
    assert_eq!(after.restarts, 1);
    assert_eq!(
        after.reason,
        Some(Reason::Exited {
            process: "module".into(),
            code: 4
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_coordinator_everything_goes_on() {
    let mut coordinator = Coordinator::start().await;
    let package = Package::quick(&coordinator);
    coordinator.desire(order(1), &[package.spec(ID, "serve")]);
    let mut node = Node::running(&coordinator);
    let before = coordinator.phase(ID, Phase::Healthy).await;
    let address = before.address.unwrap();
    coordinator.stop();
    let _ = ask(address, "/exit");
    let pid = until("a restart", || {
        ask(address, "/").map_err(|error| error.to_string())
    })
    .await;
    assert_ne!(
        pid.split(' ').next().unwrap(),
        before.pid.unwrap().to_string()
    );
    // Also for an agent that begins without it.
    node.kill();
    node.run();
    ask(address, "/log?0-100").unwrap();
    let _ = ask(address, "/exit");
    until("another restart", || {
        ask(address, "/").map_err(|error| error.to_string())
    })
    .await;
    ask(address, "/log?100-200").unwrap();
    coordinator.run().await;
    let after = coordinator
        .status(ID, |s| s.start == 3 && s.phase == Phase::Healthy)
        .await;
    assert_eq!(after.restarts, 2);
    until_true("all lines", || coordinator.lines(ID, "line ").len() >= 200).await;
    let expected: Vec<String> = (0..200).map(|i| format!("line {i}")).collect();
    assert_eq!(coordinator.lines(ID, "line "), expected);
    // The folders of the first two starts are of no use any more.
    let starts = node.data().join("instances").join(ID).join("starts");
    until_true("clean folders", || {
        std::fs::read_dir(&starts).unwrap().count() == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_ledger_stops_nothing() {
    let mut coordinator = Coordinator::start().await;
    let package = Package::quick(&coordinator);
    coordinator.desire(order(1), &[package.spec(ID, "serve")]);
    let mut node = Node::running(&coordinator);
    let before = coordinator.phase(ID, Phase::Healthy).await;
    node.kill();
    std::fs::write(node.data().join("ledger.json"), "{").unwrap();
    coordinator.stop();
    node.run();
    until("its adoption", || {
        let log = node.log();
        if log.contains("adopted") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    coordinator.run().await;
    let hello = coordinator.hello(2).await;
    assert_eq!(
        (hello.accepted, hello.instances[0].phase.as_str()),
        (None, "healthy")
    );
    coordinator.acked(2).await;
    assert_eq!(pid_at(before.address.unwrap()), before.pid.unwrap());
    let after = coordinator.phase(ID, Phase::Healthy).await;
    assert_eq!((after.pid, after.start), (before.pid, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_shim_ends_its_instance_with_that_reason() {
    let coordinator = Coordinator::start().await;
    let package = Package::quick(&coordinator);
    coordinator.desire(order(1), &[package.spec(ID, "serve")]);
    let node = Node::running(&coordinator);
    let before = coordinator.phase(ID, Phase::Healthy).await;
    let state = node.data().join("instances").join(ID).join("starts/1");
    let shim = berth_shim::state::State::load(&state).unwrap().shim.pid;
    let pid = rustix::process::Pid::from_raw(shim as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let after = coordinator
        .status(ID, |s| s.start == 2 && s.phase == Phase::Healthy)
        .await;
    assert_eq!(after.reason, Some(Reason::SupervisorLost));
    assert!(!alive(before.pid.unwrap()));
}
