//! Tasks of jobs in Pods: the output is with the coordinator before the Pod ends.

use berth_model::instance::{Phase, Reason};

use super::Pod;
use crate::coordinator::Coordinator;
use crate::tasks::{ID, MODULE, blob, file, outputs, script, served, task};
use crate::wait::until_true;

#[tokio::test(flavor = "multi_thread")]
async fn a_task_leaves_its_output_and_the_pod_ends_well() {
    let mut coordinator = Coordinator::start().await;
    let words = "echo begin; while [ ! -e \"$HOME/../../../../go\" ]; do sleep 0.05; done\n\
        tr a-z A-Z < \"$BERTH_JOB_INPUT\" > \"$BERTH_JOB_OUTPUT\"; echo done\n";
    let package = script(&coordinator, words);
    let piece = blob(&coordinator, "", b"one\ntwo\n");
    let pod = Pod::of(&coordinator, task(&package, file(vec![piece])));
    let mut main = pod.running();
    until_true("its beginning", || main.stdout().contains("begin\n")).await;
    // It is done while nobody can take what it leaves.
    coordinator.stop();
    std::fs::write(pod.path("go"), "").unwrap();
    until_true("its end", || main.stdout().ends_with("done\n")).await;
    assert!(main.is_running());
    coordinator.run().await;
    assert_eq!(main.exit_code().await, 0, "{}", main.log());
    let status = coordinator.with(|state| state.statuses[ID].clone());
    assert_eq!(
        (status.phase, status.reason),
        (Phase::Stopped, Some(Reason::Completed))
    );
    assert_eq!(status.output.unwrap().bytes, 8);
    let outputs = outputs(&coordinator);
    assert_eq!(outputs.len(), 1);
    assert_eq!(outputs[0].2, b"ONE\nTWO\n");
    assert_eq!(pod.termination_log().lines().next(), Some("completed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_fails_ends_the_pod_with_its_code() {
    let coordinator = Coordinator::start().await;
    let package = script(&coordinator, "echo no use; exit 5\n");
    let pod = Pod::of(&coordinator, task(&package, file(vec![])));
    let mut main = pod.running();
    assert_eq!(main.exit_code().await, 5, "{}", main.log());
    let status = coordinator.with(|state| state.statuses[ID].clone());
    assert!(matches!(
        status.reason,
        Some(Reason::Exited { code: 5, .. })
    ));
    assert!(outputs(&coordinator).is_empty());
    assert!(pod.termination_log().ends_with("no use"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_driver_runs_beside_the_module() {
    let coordinator = Coordinator::start().await;
    let package = served(&coordinator, MODULE);
    let piece = blob(&coordinator, "", b"\"ab\"\n\"c\"\n");
    let pod = Pod::of(&coordinator, task(&package, file(vec![piece])));
    let mut main = pod.running();
    assert_eq!(main.exit_code().await, 0, "{}", main.log());
    let outputs = outputs(&coordinator);
    let text = String::from_utf8(outputs[0].2.clone()).unwrap();
    let lengths: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["length"].clone())
        .collect();
    assert_eq!(lengths, [2, 1]);
}
