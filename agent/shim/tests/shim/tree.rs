//! Nothing is left behind, whatever a module starts and whoever dies first.

use std::fs::OpenOptions;

use berth_shim::identity::{self, Signal};
use berth_shim::state::{Phase, State, Status};

use crate::harness::{Start, command, first, script, spec, until};

/// Starts a daemon: forked twice, in a session of its own, without any of the module's files.
const DAEMON: &str = "(setsid sleep 600 </dev/null >/dev/null 2>&1 &)";

#[test]
fn a_daemon_of_the_module_ends_with_it() {
    let body = format!("{DAEMON}; sleep 0.05; exit 0");
    let mut start = Start::new(&spec(vec![script("module", &body)]));
    assert_eq!(*first(&start.ended()), Status::Exited { code: 0 });
}

#[test]
fn a_daemon_that_ignores_signals_is_killed() {
    let daemon = "(setsid sh -c 'trap \"\" TERM HUP INT; echo armed; exec >/dev/null 2>&1; \
                  while :; do sleep 1; done' </dev/null &)";
    let mut spec = spec(vec![script(
        "module",
        &format!("{daemon}; echo ready; sleep 600"),
    )]);
    spec.stop_grace_ms = 100;
    let mut start = Start::new(&spec);
    start.line("armed");
    start.line("ready");
    start.signal(Signal::TERM);
    let state = start.ended();
    assert!(matches!(
        *first(&state),
        Status::Signaled { signal: 15, .. }
    ));
    assert!(state.killed_after_grace);
}

#[test]
fn orphans_are_reaped_while_the_module_runs() {
    let body = "for i in 1 2 3 4 5; do (sleep 0 &); done; echo ready; sleep 600";
    let mut start = Start::new(&spec(vec![script("module", body)]));
    start.line("ready");
    let shim = start.running().shim.pid;
    // The shell and its sleep.
    until("only the module", || {
        (identity::descendants(shim).unwrap().len() == 2).then_some(())
    });
    start.signal(Signal::TERM);
    start.ended();
}

#[test]
fn a_stranger_who_holds_the_pipe_does_not_keep_the_shim() {
    let mut start = Start::new(&spec(vec![script("module", "echo ready; sleep 600")]));
    start.line("ready");
    let pid = start.running().processes[0].pid.unwrap();
    let held = OpenOptions::new()
        .write(true)
        .open(format!("/proc/{pid}/fd/1"))
        .unwrap();
    start.signal(Signal::TERM);
    start.ended();
    drop(held);
}

#[test]
fn a_killed_shim_takes_its_processes_along_and_leaves_a_trace_of_the_rest() {
    let body = format!("{DAEMON}; echo ready; sleep 600");
    let plain = command("plain", &["sleep", "600"]);
    let mut start = Start::new(&spec(vec![script("module", &body), plain]));
    start.line("ready");
    let running = start.running();
    start.signal(Signal::KILL);
    start.exit_status();
    for process in &running.processes {
        let pid = process.pid.unwrap();
        let start_ticks = process.start_ticks.unwrap();
        let identity = berth_shim::state::ProcessIdentity { pid, start_ticks };
        until("death of the shim's children", || {
            (!identity::is_alive(identity, &running.boot_id).unwrap()).then_some(())
        });
    }
    let state = State::load(&start.dir).unwrap();
    assert_eq!(state.phase, Phase::Running);
    assert!(!identity::is_alive(state.shim, &state.boot_id).unwrap());
    // The module's own child and the daemon were not children of the shim.
    let leftovers = start.leftovers();
    assert!(!leftovers.is_empty());
    for leftover in leftovers {
        assert!(identity::send_signal(leftover, Signal::KILL).unwrap());
    }
    until("death of the leftovers", || {
        start.leftovers().is_empty().then_some(())
    });
}
