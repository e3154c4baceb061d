//! The init container: what it leaves, what it waits for, and what it gives up at.

use std::os::unix::fs::PermissionsExt;
use std::process::{Output, Stdio};

use super::{ID, Pod};
use crate::coordinator::Coordinator;
use crate::wait::{until, until_true};

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_leaves_the_programs_the_package_and_who_it_is() {
    let coordinator = Coordinator::start().await;
    let pod = Pod::new(&coordinator, "serve");
    let output = pod.prepare();
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        format!("prepared {ID}\n")
    );
    let joined = coordinator.with(|state| state.pods.clone());
    assert_eq!(joined.len(), 1);
    assert_eq!(joined[0].pod_uid, "pod-uid");
    assert_eq!(joined[0].job_uid, "job-uid");
    assert_eq!(joined[0].pod_name, "berth-web-1-0-1-x7k2p");
    assert_eq!(joined[0].address, "127.0.0.1");
    for program in ["bin/berth-agent", "bin/berth-shim"] {
        let mode = pod.path(program).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755, "{program}");
    }
    let key = pod.path("data/identity/node.key");
    assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let packages = pod.path("data/packages").read_dir().unwrap().count();
    assert_eq!(packages, 1);
    // A container that is started again uses the same key, for which the token still is good.
    let again = pod.prepare();
    assert!(again.status.success(), "{}", told(&again));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_final_and_said_where_kubernetes_looks() {
    let coordinator = Coordinator::start().await;
    let first = Pod::new(&coordinator, "serve");
    assert!(first.prepare().status.success());
    let second = Pod::bare(&coordinator);
    let output = second.prepare();
    assert_eq!(output.status.code(), Some(1));
    assert!(told(&output).contains("this token is used up"));
    assert!(
        second.termination_log().contains("this token is used up"),
        "{}",
        second.termination_log()
    );
    // Without having been prepared, the main container says what is missing.
    std::fs::copy(
        second.path("image/berth-agent"),
        second.path("bin/berth-agent"),
    )
    .unwrap();
    let output = second.run_command().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(told(&output).contains("pod prepare"), "{}", told(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_that_is_not_complete_is_told_in_whole() {
    let coordinator = Coordinator::start().await;
    let mut pod = Pod::bare(&coordinator);
    pod.set("POD_IP", "nowhere");
    pod.set("BERTH_JOB_UID", "");
    let output = pod.prepare();
    assert_eq!(output.status.code(), Some(1));
    let told = told(&output);
    assert!(told.contains("POD_IP: ") && told.contains("BERTH_JOB_UID is not set"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_is_away_is_waited_for_but_not_for_ever() {
    let mut coordinator = Coordinator::start().await;
    let mut pod = Pod::new(&coordinator, "serve");
    coordinator.stop();
    let mut command = pod.prepare_command();
    let err = std::fs::File::create(pod.path("stderr")).unwrap();
    let mut waiting = command.stdout(Stdio::null()).stderr(err).spawn().unwrap();
    let log = pod.path("stderr");
    until_true("a first attempt", || {
        std::fs::read_to_string(&log)
            .unwrap()
            .contains("cannot join")
    })
    .await;
    coordinator.run().await;
    let status = until("its end", || {
        let ended = waiting.try_wait().unwrap();
        ended.ok_or_else(|| std::fs::read_to_string(&log).unwrap())
    })
    .await;
    assert!(status.success());

    coordinator.stop();
    pod.set("BERTH_POD_PREPARE_TIMEOUT", "300ms");
    let late = pod.prepare();
    assert_eq!(late.status.code(), Some(1));
    assert!(told(&late).contains("not prepared within 300ms"));
    assert!(pod.termination_log().contains("not prepared within"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_is_not_what_it_should_be_is_final() {
    let coordinator = Coordinator::start().await;
    let pod = Pod::new(&coordinator, "serve");
    coordinator.with(|state| {
        for bytes in state.blobs.values_mut() {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0xff;
        }
    });
    let output = pod.prepare();
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(pod.termination_log().contains("push the package again"));
}

#[tokio::test]
async fn a_pod_that_is_deleted_before_it_is_prepared_ends_at_once() {
    let mut coordinator = Coordinator::start().await;
    let pod = Pod::new(&coordinator, "serve");
    coordinator.stop();
    let mut command = pod.prepare_command();
    let err = std::fs::File::create(pod.path("stderr")).unwrap();
    let mut waiting = command.stdout(Stdio::null()).stderr(err).spawn().unwrap();
    let log = pod.path("stderr");
    until_true("a first attempt", || {
        std::fs::read_to_string(&log)
            .unwrap()
            .contains("cannot join")
    })
    .await;
    let process = rustix::process::Pid::from_child(&waiting);
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    let status = until("its end", || {
        let ended = waiting.try_wait().unwrap();
        ended.ok_or_else(|| std::fs::read_to_string(&log).unwrap())
    })
    .await;
    // By itself, not by the signal: the first process of a container hears none that it does not listen for.
    assert_eq!(status.code(), Some(1));
    assert!(pod.termination_log().contains("told to end"));
}
