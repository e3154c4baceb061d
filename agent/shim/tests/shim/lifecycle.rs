//! How starts end, and what the state says of it.

use berth_shim::identity::Signal;
use berth_shim::state::Status;

use crate::harness::{Start, command, first, script, spec};

#[test]
fn an_exit_code_is_kept() {
    let mut start = Start::new(&spec(vec![script("module", "echo bye >&2; exit 3")]));
    let state = start.ended();
    assert_eq!(*first(&state), Status::Exited { code: 3 });
    assert_eq!(state.ended_by.as_deref(), Some("module"));
    assert!(!state.stop_requested && !state.killed_after_grace);
    assert_eq!(state.stderr_tail.as_deref(), Some("bye\n"));
}

#[test]
fn a_signal_is_kept_real_time_ones_too() {
    for signal in [11, 9, 40] {
        let mut start = Start::new(&spec(vec![script("module", &format!("kill -{signal} $$"))]));
        let state = start.ended();
        assert!(matches!(*first(&state), Status::Signaled { signal: got, .. } if got == signal));
    }
}

#[test]
fn a_stop_is_a_chance_to_end_in_order() {
    let body = "trap 'echo stopping; exit 7' TERM; echo ready; while :; do sleep 0.01; done";
    let mut start = Start::new(&spec(vec![script("module", body)]));
    start.line("ready");
    start.signal(Signal::TERM);
    let state = start.ended();
    assert_eq!(*first(&state), Status::Exited { code: 7 });
    assert!(state.stop_requested && !state.killed_after_grace);
    assert_eq!(state.ended_by, None);
    start.line("stopping");
}

#[test]
fn who_ignores_the_stop_is_killed_after_the_grace() {
    let body = "trap '' TERM; echo ready; while :; do sleep 0.01; done";
    let mut spec = spec(vec![script("module", body)]);
    spec.stop_grace_ms = 100;
    let mut start = Start::new(&spec);
    start.line("ready");
    start.signal(Signal::TERM);
    start.signal(Signal::TERM);
    let state = start.ended();
    assert!(matches!(*first(&state), Status::Signaled { signal: 9, .. }));
    assert!(state.stop_requested && state.killed_after_grace);
    assert_eq!(state.ended_by, None);
}

#[test]
fn a_kill_does_not_wait_for_the_grace() {
    let body = "trap '' TERM; echo ready; while :; do sleep 0.01; done";
    let mut start = Start::new(&spec(vec![script("module", body)]));
    start.line("ready");
    start.signal(Signal::TERM);
    start.signal(Signal::USR1);
    let state = start.ended();
    assert!(matches!(*first(&state), Status::Signaled { signal: 9, .. }));
    assert!(state.stop_requested && !state.killed_after_grace);
}

#[test]
fn what_cannot_be_executed_says_why() {
    let helper = command("helper", &["sleep", "600"]);
    let module = command("module", &["/no/such/program"]);
    let last = command("last", &["sleep", "600"]);
    let mut start = Start::new(&spec(vec![helper, module, last]));
    let state = start.ended();
    assert_eq!(state.ended_by.as_deref(), Some("module"));
    assert!(matches!(
        state.processes[0].status,
        Status::Signaled { signal: 15, .. }
    ));
    let Status::FailedToStart { error } = &state.processes[1].status else {
        panic!("{state:?}")
    };
    assert!(error.contains("/no/such/program: No such file"), "{error}");
    assert_eq!(state.processes[2].status, Status::NotStarted);
}

#[test]
fn a_single_failure_and_a_missing_folder_end_too() {
    let mut module = command("module", &["true"]);
    module.cwd = "/no/such/folder".into();
    let mut start = Start::new(&spec(vec![module]));
    let state = start.ended();
    let Status::FailedToStart { error } = first(&state) else {
        panic!("{state:?}")
    };
    assert!(
        error.contains("working directory /no/such/folder"),
        "{error}"
    );
    let mut start = Start::new(&spec(vec![command("module", &["/etc/passwd"])]));
    let state = start.ended();
    let Status::FailedToStart { error } = first(&state) else {
        panic!("{state:?}")
    };
    assert!(error.contains("Permission denied"), "{error}");
}

#[test]
fn the_end_of_one_process_ends_the_others() {
    let module = script("module", "sleep 0.05; exit 4");
    let transform = command("transform", &["sleep", "600"]);
    let mut start = Start::new(&spec(vec![transform, module]));
    let state = start.ended();
    assert_eq!(state.ended_by.as_deref(), Some("module"));
    assert!(matches!(
        state.processes[0].status,
        Status::Signaled { signal: 15, .. }
    ));
    assert_eq!(state.processes[1].status, Status::Exited { code: 4 });
}

#[test]
fn a_helper_may_go_without_ending_the_rest() {
    let mut helper = script("helper", "exit 0");
    helper.primary = false;
    let module = script("module", "echo ready; sleep 600");
    let mut start = Start::new(&spec(vec![helper, module]));
    start.line("ready");
    start.signal(Signal::TERM);
    let state = start.ended();
    assert_eq!(state.processes[0].status, Status::Exited { code: 0 });
    assert!(matches!(
        state.processes[1].status,
        Status::Signaled { signal: 15, .. }
    ));
    assert_eq!(state.ended_by, None);
}

#[test]
fn a_start_is_run_only_once_and_by_one_shim() {
    let spec = spec(vec![script("module", "echo ready; sleep 600")]);
    let mut start = Start::new(&spec);
    start.line("ready");
    let before = start.running();
    let again = || Start::at(&start.dir, &spec).shim_exit_code();
    assert_eq!(again(), Some(1));
    assert_eq!(start.running(), before);
    start.signal(Signal::INT);
    start.ended();
    let again = Start::at(&start.dir, &spec).shim_exit_code();
    assert_eq!(again, Some(1));
}
