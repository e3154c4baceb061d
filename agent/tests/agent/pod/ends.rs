//! How Pods end: with the module's code, and with everything told.

use berth_model::instance::{Intent, Phase, Reason};
use berth_model::node::NodeKind;

use super::{ID, Pod};
use crate::coordinator::Coordinator;
use crate::module::ask;
use crate::node::{order, stopping};
use crate::wait::until_true;

/// What the coordinator has of the instance, without any waiting: the Pod has ended.
fn status(coordinator: &Coordinator) -> berth_model::instance::InstanceStatus {
    coordinator.with(|state| state.statuses[ID].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_ends_with_its_modules_code_when_everything_is_told() {
    let module = "module".to_owned();
    let cases = [
        (
            "end-well",
            0,
            Reason::Exited {
                process: module.clone(),
                code: 0,
            },
        ),
        (
            "exit",
            3,
            Reason::Exited {
                process: module.clone(),
                code: 3,
            },
        ),
        (
            "abort",
            134,
            Reason::Signaled {
                process: module,
                signal: 6,
            },
        ),
    ];
    for (mode, code, reason) in cases {
        let coordinator = Coordinator::start().await;
        let pod = Pod::new(&coordinator, mode);
        let mut main = pod.running();
        assert_eq!(main.exit_code().await, code, "{mode}: {}", main.log());
        let status = status(&coordinator);
        assert_eq!(
            (status.phase, status.reason, status.start),
            (Phase::Stopped, Some(reason.clone()), 1),
            "{mode}"
        );
        assert!(
            pod.termination_log().starts_with(&reason.to_string()),
            "{mode}: {}",
            pod.termination_log()
        );
        assert_eq!(coordinator.lines(ID, "module begins").len(), 1, "{mode}");
        assert!(main.stdout().contains("module begins\n"), "{mode}");
        if mode == "end-well" {
            let expected: Vec<String> = (0..2000).map(|i| format!("line {i}")).collect();
            assert!(coordinator.lines(ID, "line ") == expected);
            assert!(main.stdout().ends_with("line 1998\nline 1999\n"));
        }
        if mode == "exit" {
            assert!(status.last_lines.contains(&"last words".to_owned()));
            assert!(pod.termination_log().contains("\nlast words"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serving_pod_is_healthy_at_its_address_and_sigterm_ends_it_in_order() {
    let coordinator = Coordinator::start().await;
    let mut pod = Pod::new(&coordinator, "serve");
    pod.set("FROM_IMAGE", "yes");
    let mut main = pod.running();
    let healthy = coordinator.phase(ID, Phase::Healthy).await;
    let address = healthy.address.unwrap();
    assert_eq!(address.ip().to_string(), "127.0.0.1");
    let hello = coordinator.hello(1).await.facts.unwrap();
    assert_eq!(hello.kind, "virtual");
    assert_eq!(hello.hostname, "berth-web-1-0-1-x7k2p");
    assert_eq!(hello.runtimes, ["process"]);
    assert!(NodeKind::Virtual == NodeKind::default() && hello.exclusive);
    for name in ["FROM_IMAGE", "HOST", "POD_UID", "BERTH_ENDPOINT"] {
        ask(address, &format!("/env?{name}")).unwrap();
    }
    ask(address, "/log?0-5000").unwrap();
    main.terminate();
    // The module leaves SIGTERM as it is.
    assert_eq!(main.exit_code().await, 143, "{}", main.log());
    let status = status(&coordinator);
    assert_eq!(
        (status.phase, status.reason),
        (Phase::Stopped, Some(Reason::StopRequested))
    );
    let expected: Vec<String> = (0..5000).map(|i| format!("line {i}")).collect();
    assert!(coordinator.lines(ID, "line ") == expected);
    let env = [
        "env FROM_IMAGE=yes",
        "env HOST=0.0.0.0",
        "env POD_UID=",
        "env BERTH_ENDPOINT=",
    ];
    assert_eq!(coordinator.lines(ID, "env "), env);
    assert!(ask(address, "/").is_err(), "the module is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_ignores_sigterm_is_killed_after_its_grace() {
    let coordinator = Coordinator::start().await;
    let pod = Pod::new(&coordinator, "ignore-term");
    let mut main = pod.running();
    coordinator.phase(ID, Phase::Healthy).await;
    main.terminate();
    assert_eq!(main.exit_code().await, 137, "{}", main.log());
    assert_eq!(status(&coordinator).reason, Some(Reason::KilledAfterGrace));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_coordinator_ends_a_pod_by_a_set() {
    for forget in [false, true] {
        let coordinator = Coordinator::start().await;
        let pod = Pod::new(&coordinator, "serve");
        let mut main = pod.running();
        coordinator.phase(ID, Phase::Healthy).await;
        let spec = coordinator.with(|state| state.pod_instance.clone().unwrap());
        assert_eq!(spec.intent, Intent::Run);
        // As it is wanted: nothing changes; what is somebody else's is nothing to it.
        let mut other = spec.clone();
        other.id = "other.1.0.1".parse().unwrap();
        coordinator.desire(order(1), &[spec.clone(), other]);
        assert_eq!(coordinator.acked(1).await[0].refused, "");
        assert!(main.is_running());
        let wanted = if forget {
            vec![]
        } else {
            vec![stopping(&spec)]
        };
        coordinator.desire(order(2), &wanted);
        assert_eq!(main.exit_code().await, 143, "{}", main.log());
        if forget {
            assert_eq!(coordinator.with(|state| state.forgotten.clone()), [ID]);
        } else {
            assert_eq!(status(&coordinator).reason, Some(Reason::StopRequested));
        }
        let others = coordinator.with(|state| state.statuses.contains_key("other.1.0.1"));
        assert!(!others);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_the_coordinator_does_not_hear_waits_for_it() {
    let mut coordinator = Coordinator::start().await;
    let pod = Pod::new(&coordinator, "serve");
    let mut main = pod.running();
    let address = coordinator.phase(ID, Phase::Healthy).await.address.unwrap();
    coordinator.stop();
    ask(address, "/log?0-3000").unwrap();
    let _ = ask(address, "/exit");
    until_true("its last line on standard output", || {
        main.stdout().ends_with("line 2999\n")
    })
    .await;
    until_true("the module's end", || {
        main.log().contains("exited with code 4")
    })
    .await;
    assert!(main.is_running(), "it ended untold: {}", main.log());
    coordinator.run().await;
    assert_eq!(main.exit_code().await, 4, "{}", main.log());
    assert_eq!(coordinator.lines(ID, "line ").len(), 3000);
    let status = status(&coordinator);
    assert_eq!(status.phase, Phase::Stopped);
    assert!(matches!(
        status.reason,
        Some(Reason::Exited { code: 4, .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_stays_away_is_not_waited_for_without_end() {
    let mut coordinator = Coordinator::start().await;
    let mut pod = Pod::new(&coordinator, "serve");
    pod.set("BERTH_POD_LINGER", "1s");
    let mut main = pod.running();
    let address = coordinator.phase(ID, Phase::Healthy).await.address.unwrap();
    coordinator.stop();
    let _ = ask(address, "/exit");
    assert_eq!(main.exit_code().await, 4, "{}", main.log());
    assert!(main.log().contains("the coordinator is away"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_the_coordinator_does_not_know_any_more_ends() {
    let mut coordinator = Coordinator::start().await;
    let pod = Pod::new(&coordinator, "serve");
    let mut main = pod.running();
    let address = coordinator.phase(ID, Phase::Healthy).await.address.unwrap();
    let refusal = berth_proto::v1::Refusal {
        code: "removed".into(),
        message: "web is deleted".into(),
    };
    coordinator.with(|state| state.refusal = Some(refusal));
    coordinator.restart().await;
    assert_eq!(main.exit_code().await, 143, "{}", main.log());
    assert!(ask(address, "/").is_err(), "the module is gone");
    assert_eq!(pod.termination_log().lines().next(), Some("web is deleted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_not_there_is_told_and_not_tried_again() {
    let coordinator = Coordinator::start().await;
    let pod = Pod::new(&coordinator, "serve");
    coordinator.with(|state| {
        let spec = state.pod_instance.as_mut().unwrap();
        spec.manifest.module.command = vec!["bin/absent".to_owned()];
    });
    let mut main = pod.running();
    assert_eq!(main.exit_code().await, 127, "{}", main.log());
    let status = status(&coordinator);
    assert_eq!((status.phase, status.start), (Phase::Stopped, 1));
    assert!(matches!(status.reason, Some(Reason::FailedToStart { .. })));
}
