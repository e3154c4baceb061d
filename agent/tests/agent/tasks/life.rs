//! Agents that are killed, coordinators that are away, deadlines: never a second start.

use berth_model::instance::{InstanceSpec, Phase, Reason};
use berth_model::time::Span;

use super::{ID, begins, file, outputs, script, stopped, task};
use crate::coordinator::Coordinator;
use crate::node::{Node, alive, order, stopping};
use crate::wait::{until, until_true};

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_reported_once_with_its_code_and_last_lines() {
    let coordinator = Coordinator::start().await;
    let package = script(&coordinator, "echo begin\necho no such model >&2\nexit 7\n");
    coordinator.desire(order(1), &[task(&package, file(vec![]))]);
    let mut node = Node::running(&coordinator);
    let failed = stopped(&coordinator).await;
    let reason = Reason::Exited {
        process: "job".into(),
        code: 7,
    };
    assert_eq!(failed.reason, Some(reason.clone()));
    assert!(
        failed.last_lines.contains(&"no such model".to_owned()),
        "{failed:?}"
    );
    // Another agent does not try it either.
    node.kill();
    node.run();
    let hello = coordinator.hello(2).await;
    assert_eq!(
        (hello.instances[0].phase.as_str(), hello.instances[0].start),
        ("stopped", 1)
    );
    coordinator.acked(2).await;
    let again = stopped(&coordinator).await;
    assert_eq!((again.reason, again.start), (Some(reason), 1));
    until_true("its line", || begins(&coordinator) > 0).await;
    assert_eq!(begins(&coordinator), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agents_task_goes_on_and_ends_once() {
    let coordinator = Coordinator::start().await;
    let package = script(
        &coordinator,
        "echo begin\nwhile [ ! -e \"$HOME/go\" ]; do sleep 0.05; done\necho end > \"$BERTH_JOB_OUTPUT\"\n",
    );
    coordinator.desire(order(1), &[task(&package, file(vec![]))]);
    let mut node = Node::running(&coordinator);
    let pid = coordinator.phase(ID, Phase::Healthy).await.pid.unwrap();
    for round in 2..=3 {
        node.kill();
        assert!(alive(pid));
        node.run();
        let hello = coordinator.hello(round).await;
        assert_eq!(
            (hello.instances[0].phase.as_str(), hello.instances[0].pid),
            ("healthy", pid)
        );
    }
    std::fs::write(node.data().join("instances").join(ID).join("work/go"), "").unwrap();
    let done = stopped(&coordinator).await;
    assert_eq!((done.reason, done.start), (Some(Reason::Completed), 1));
    assert_eq!(outputs(&coordinator).len(), 1);
    until_true("its line", || begins(&coordinator) > 0).await;
    assert_eq!(begins(&coordinator), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_between_end_and_upload_uploads_after_its_restart() {
    let coordinator = Coordinator::start().await;
    let package = script(
        &coordinator,
        "echo begin\necho out > \"$BERTH_JOB_OUTPUT\"\n",
    );
    // Nothing gets through.
    coordinator.with(|state| state.output_limit = Some(0));
    coordinator.desire(order(1), &[task(&package, file(vec![]))]);
    let mut node = Node::running(&coordinator);
    let waiting = coordinator
        .status(ID, |s| s.phase == Phase::Stopping && s.reason.is_some())
        .await;
    assert!(
        waiting
            .reason
            .unwrap()
            .to_string()
            .contains("the network broke")
    );
    node.kill();
    coordinator.with(|state| state.output_limit = None);
    // This time it is taken, and the answer is lost: it is sent again.
    coordinator.with(|state| state.lose_answer = true);
    node.run();
    let done = stopped(&coordinator).await;
    assert_eq!((done.reason, done.start), (Some(Reason::Completed), 1));
    let sent = outputs(&coordinator);
    assert_eq!((sent.len(), &sent[0]), (2, &sent[1]));
    assert_eq!(done.output.unwrap().blob.to_string(), sent[0].1);
    // What was acknowledged is not sent a third time by the next agent.
    node.kill();
    node.run();
    coordinator.hello(3).await;
    coordinator.acked(3).await;
    let again = stopped(&coordinator).await;
    assert_eq!(again.reason, Some(Reason::Completed));
    assert_eq!((outputs(&coordinator).len(), begins(&coordinator)), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_is_away_gets_the_output_when_it_is_back() {
    let mut coordinator = Coordinator::start().await;
    let package = script(
        &coordinator,
        "while [ ! -e \"$HOME/go\" ]; do sleep 0.05; done\nhead -c 3000000 /dev/zero > \"$BERTH_JOB_OUTPUT\"\n",
    );
    coordinator.desire(order(1), &[task(&package, file(vec![]))]);
    let node = Node::running(&coordinator);
    let pid = coordinator.phase(ID, Phase::Healthy).await.pid.unwrap();
    coordinator.stop();
    std::fs::write(node.data().join("instances").join(ID).join("work/go"), "").unwrap();
    until_true("its end", || !alive(pid)).await;
    coordinator.run().await;
    let done = stopped(&coordinator).await;
    assert_eq!(done.reason, Some(Reason::Completed), "{done:?}");
    assert_eq!(outputs(&coordinator)[0].2.len(), 3_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_and_a_stop_end_it_in_order() {
    let coordinator = Coordinator::start().await;
    let package = script(
        &coordinator,
        "trap 'echo asked; exit 0' TERM\necho begin\nwhile :; do sleep 0.05; done\n",
    );
    let mut late = task(&package, file(vec![]));
    late.task.as_mut().unwrap().deadline = Some(Span::secs(2));
    let second = InstanceSpec {
        id: "other.1.0.1".parse().unwrap(),
        ..task(&package, file(vec![]))
    };
    coordinator.desire(order(1), &[late.clone(), second.clone()]);
    let mut node = Node::running(&coordinator);
    coordinator.phase(ID, Phase::Healthy).await;
    // The deadline goes on without an agent.
    node.kill();
    node.run();
    let ended = stopped(&coordinator).await;
    assert_eq!(
        ended.reason,
        Some(Reason::DeadlineExceeded { after_ms: 2000 })
    );
    assert!(ended.last_lines.contains(&"asked".to_owned()), "{ended:?}");
    coordinator.phase("other.1.0.1", Phase::Healthy).await;
    coordinator.desire(order(2), &[late, stopping(&second)]);
    let told = coordinator.phase("other.1.0.1", Phase::Stopped).await;
    assert_eq!(
        (told.reason, told.output),
        (Some(Reason::StopRequested), None)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_shim_ends_the_attempt() {
    let coordinator = Coordinator::start().await;
    let package = script(&coordinator, "echo begin\nwhile :; do sleep 0.05; done\n");
    coordinator.desire(order(1), &[task(&package, file(vec![]))]);
    let node = Node::running(&coordinator);
    coordinator.phase(ID, Phase::Healthy).await;
    let start = node.data().join("instances").join(ID).join("starts/1");
    let shim = until("the shim", || {
        berth_shim::state::State::load(&start).map_err(|error| error.to_string())
    })
    .await
    .shim
    .pid;
    let pid = rustix::process::Pid::from_raw(shim as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let lost = stopped(&coordinator).await;
    assert_eq!((lost.reason, lost.start), (Some(Reason::SupervisorLost), 1));
}
