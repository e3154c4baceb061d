//! As the first process of a container.

use std::process::{Command, Stdio};

use berth_model::instance::Phase;
use rustix::process::{Pid, Signal, kill_process};

use super::{ID, Pod};
use crate::coordinator::Coordinator;
use crate::wait::{until, until_true};

/// A process namespace of its own, if this machine lets the tests have one.
fn namespace() -> Option<Vec<&'static str>> {
    let plain = vec!["--pid", "--fork", "--mount-proc", "--kill-child"];
    let as_user = [vec!["--user", "--map-root-user"], plain.clone()].concat();
    [plain, as_user].into_iter().find(|arguments| {
        let tried = Command::new("unshare").args(arguments).arg("true").output();
        tried.is_ok_and(|output| output.status.success())
    })
}

fn children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let text = text.unwrap_or_default();
    text.split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_takes_in_orphans_and_passes_signals_and_the_exit_code_on() {
    let Some(arguments) = namespace() else {
        berth_skipped::skip("pod-init", "unshare makes no process namespace here");
        return;
    };
    let coordinator = Coordinator::start().await;
    let pod = Pod::new(&coordinator, "serve");
    assert!(pod.prepare().status.success());
    let run = pod.run_command();
    let mut command = Command::new("unshare");
    command
        .args(&arguments)
        .arg(run.get_program())
        .args(run.get_args());
    let env = run
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)));
    command.env_clear().envs(env);
    command.env("PATH", std::env::var_os("PATH").unwrap());
    let err = std::fs::File::create(pod.path("stderr")).unwrap();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(err);
    let mut outer = command.spawn().unwrap();
    let log = || std::fs::read_to_string(pod.path("stderr")).unwrap();
    coordinator.phase(ID, Phase::Healthy).await;
    let init = children(outer.id())[0];
    assert_eq!(children(init).len(), 1, "the agent is its only child");

    // What is executed in the container leaves an orphan behind, which becomes the first process's child.
    let target = init.to_string();
    let mut enter = Command::new("nsenter");
    enter.args(["--target", &target, "--pid", "--mount"]);
    if arguments.contains(&"--user") {
        enter.args(["--user", "--preserve-credentials"]);
    }
    let go = pod.path("go");
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.05; done & exit 0",
        go.display()
    );
    assert!(
        enter
            .args(["sh", "-c", &script])
            .status()
            .unwrap()
            .success()
    );
    until_true("an orphan", || children(init).len() == 2).await;
    std::fs::write(go, "").unwrap();
    until_true("that it is taken in", || children(init).len() == 1).await;

    let pid = Pid::from_raw(i32::try_from(init).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let status = until("its end", || outer.try_wait().unwrap().ok_or_else(log)).await;
    assert_eq!(status.code(), Some(143), "{}", log());
    let ended = coordinator.with(|state| state.statuses[ID].phase);
    assert_eq!(ended, Phase::Stopped);
}
