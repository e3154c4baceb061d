//! Single decisions, one by one.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_model::id::InstanceId;
use berth_model::instance::{Intent, Phase, Reason};
use berth_model::node::RuntimeKind;
use berth_model::time::Monotonic;

use crate::testing::{id, set, spec};
use crate::{Action, Cause, Check, End, Local, Package, Plan, Run, Settings, Status, plan};

const A: &str = "a.1.0.1";

fn at(seconds: u64) -> Monotonic {
    Monotonic(seconds * 1000)
}

fn up(healthy: bool, since: Monotonic) -> Local {
    let mut local = Local {
        package: Package::Ready,
        port: Some(21_000),
        ..Local::default()
    };
    local.launching(1);
    local.launched(Some(42), healthy, since);
    local
}

fn one(local: &Local, intent: Intent, now: Monotonic) -> (Plan, Status) {
    let known = BTreeMap::from([(id(A), local.clone())]);
    let result = plan(
        Some(&set([spec(A, intent)])),
        &known,
        now,
        &Settings::default(),
    );
    let status = result.statuses[&id(A)].clone();
    (result, status)
}

fn failed(reason: Reason) -> Check {
    Check::Failed(reason)
}

fn refused() -> Reason {
    Reason::ChecksFailed {
        last_check: "connection refused".into(),
    }
}

#[test]
fn a_start_that_never_gets_healthy_is_stopped_with_what_is_known() {
    let mut local = up(false, at(1));
    local.checked(failed(refused()), 2, at(2));
    let (result, status) = one(&local, Intent::Run, at(5));
    assert_eq!((result.actions, result.wake), (vec![], Some(at(11))));
    assert_eq!((status.phase, status.reason), (Phase::Starting, None));
    let (result, _) = one(&local, Intent::Run, at(11));
    let reason = Reason::StartTimeout {
        last_check: "connection refused".into(),
        after_ms: 10_000,
    };
    let cause = Cause::Broken(reason.clone());
    assert_eq!(
        result.actions,
        [Action::Stop {
            id: id(A),
            cause: cause.clone(),
            kill: at(26)
        }]
    );
    local.stopping(cause, at(26));
    assert_eq!(one(&local, Intent::Run, at(12)).1.phase, Phase::Stopping);
    local.end(
        &id(A),
        End::Stopped(Reason::KilledAfterGrace),
        at(14),
        &Settings::default(),
    );
    let (result, status) = one(&local, Intent::Run, at(14));
    assert_eq!(
        (status.phase, status.reason),
        (Phase::Backoff, Some(reason))
    );
    let wake = result.wake.unwrap();
    assert!(wake > at(14) && wake <= at(14).after(Duration::from_millis(500)));
    let (result, _) = one(&local, Intent::Run, wake);
    assert_eq!(
        result.actions,
        [Action::Launch {
            id: id(A),
            start: 2
        }]
    );
}

#[test]
fn a_wrong_port_is_named_while_it_starts_and_when_it_ends() {
    let mut local = up(false, at(1));
    let wrong = Reason::WrongPort {
        expected: 21_000,
        found: vec![8080],
    };
    local.checked(failed(wrong.clone()), 2, at(2));
    assert_eq!(
        one(&local, Intent::Run, at(3)).1.reason,
        Some(wrong.clone())
    );
    let (result, _) = one(&local, Intent::Run, at(11));
    assert!(
        matches!(&result.actions[..], [Action::Stop { cause: Cause::Broken(r), .. }] if *r == wrong)
    );
}

#[test]
fn a_port_that_is_taken_is_given_up() {
    let mut local = up(false, at(1));
    let taken = Reason::PortTaken {
        port: 21_000,
        pid: Some(9),
    };
    local.stopping(Cause::Broken(taken), at(99));
    local.end(
        &id(A),
        End::Stopped(Reason::StopRequested),
        at(3),
        &Settings::default(),
    );
    assert_eq!(local.port, None);
}

#[test]
fn failed_checks_make_it_unhealthy_then_restart_it() {
    let mut local = up(true, at(1));
    local.checked(failed(refused()), 2, at(2));
    assert_eq!(one(&local, Intent::Run, at(2)).1.phase, Phase::Healthy);
    local.checked(failed(refused()), 2, at(3));
    let (result, status) = one(&local, Intent::Run, at(3));
    assert_eq!(
        (status.phase, status.reason),
        (Phase::Unhealthy, Some(refused()))
    );
    assert_eq!(result.actions, []);
    local.checked(Check::Passed, 2, at(4));
    let (_, status) = one(&local, Intent::Run, at(4));
    assert_eq!((status.phase, status.reason), (Phase::Healthy, None));
    for _ in 0..6 {
        local.checked(failed(refused()), 2, at(5));
    }
    let (result, _) = one(&local, Intent::Run, at(5));
    assert!(matches!(
        &result.actions[..],
        [Action::Stop {
            cause: Cause::Broken(_),
            ..
        }]
    ));
}

#[test]
fn an_end_by_itself_counts_as_a_restart_and_others_do_not() {
    let settings = Settings::default();
    let exited = Reason::Exited {
        process: "module".into(),
        code: 3,
    };
    let mut local = up(true, at(1));
    local.end(&id(A), End::ByItself(exited.clone()), at(2), &settings);
    local.launching(2);
    local.launched(None, false, at(3));
    local.checked(Check::Passed, 2, at(3));
    let (_, status) = one(&local, Intent::Run, at(4));
    assert_eq!(
        (status.phase, status.restarts, status.start),
        (Phase::Healthy, 1, 2)
    );
    assert_eq!(
        status.reason,
        Some(exited),
        "why it was restarted stays to be seen"
    );
    assert_eq!(
        one(&local, Intent::Run, at(604)).1.reason,
        None,
        "until it has proved itself"
    );

    local.end(&id(A), End::Rebooted, at(5), &settings);
    let (result, status) = one(&local, Intent::Run, at(5));
    assert_eq!(
        result.actions,
        [Action::Launch {
            id: id(A),
            start: 3
        }]
    );
    assert_eq!(status.reason, Some(Reason::Rebooted));
    local.launching(3);
    assert_eq!(local.restarts, 1);
}

#[test]
fn what_cannot_get_well_is_stopped_at_once_healthy_or_not() {
    let reason = Reason::ModelLoad {
        error: "DATA_LOSS: bad".into(),
    };
    for healthy in [false, true] {
        let mut local = up(healthy, at(1));
        local.checked(Check::Hopeless(reason.clone()), 2, at(2));
        let (result, _) = one(&local, Intent::Run, at(2));
        let [Action::Stop { cause, .. }] = &result.actions[..] else {
            panic!("{result:?}")
        };
        assert_eq!(cause, &Cause::Broken(reason.clone()));
        local.stopping(cause.clone(), at(9));
        let stopped = End::Stopped(Reason::StopRequested);
        local.end(&id(A), stopped, at(3), &Settings::default());
        let (result, status) = one(&local, Intent::Run, at(3));
        assert_eq!(
            (status.phase, status.reason),
            (Phase::Backoff, Some(reason.clone()))
        );
        assert!(result.wake.is_some() && result.actions.is_empty());
    }
}

#[test]
fn of_two_ports_only_the_one_that_is_taken_is_given_up() {
    let taken = |port| End::ByItself(Reason::PortTaken { port, pid: None });
    for (port, left) in [(1, (None, Some(2))), (2, (Some(1), None))] {
        let mut local = up(false, at(1));
        (local.port, local.module_port) = (Some(1), Some(2));
        local.end(&id(A), taken(port), at(2), &Settings::default());
        assert_eq!((local.port, local.module_port), left);
    }
}

#[test]
fn back_off_grows_and_a_long_healthy_time_resets_it() {
    let settings = Settings::default();
    let mut local = Local {
        package: Package::Ready,
        ..Local::default()
    };
    let crash = || End::ByItself(Reason::SupervisorLost);
    for streak in 1..=8 {
        local.launching(streak);
        local.launched(None, true, at(1));
        local.end(&id(A), crash(), at(10), &settings);
        assert_eq!(local.streak, streak);
    }
    local.launching(9);
    local.launched(None, true, at(1));
    local.end(&id(A), crash(), at(601), &settings);
    assert_eq!(local.streak, 1);
}

#[test]
fn a_stop_that_takes_too_long_becomes_a_kill_once() {
    let mut local = up(true, at(1));
    local.grace = Some(Duration::from_secs(3));
    let (result, _) = one(&local, Intent::Stop, at(2));
    assert_eq!(
        result.actions,
        [Action::Stop {
            id: id(A),
            cause: Cause::Unwanted,
            kill: at(10)
        }]
    );
    local.stopping(Cause::Unwanted, at(10));
    assert_eq!(one(&local, Intent::Stop, at(9)).0.wake, Some(at(10)));
    assert_eq!(
        one(&local, Intent::Stop, at(10)).0.actions,
        [Action::Kill { id: id(A) }]
    );
    local.killed();
    let (result, _) = one(&local, Intent::Stop, at(11));
    assert_eq!((result.actions, result.wake), (vec![], None));
    local.end(
        &id(A),
        End::Stopped(Reason::KilledAfterGrace),
        at(12),
        &Settings::default(),
    );
    let (result, status) = one(&local, Intent::Stop, at(12));
    assert_eq!(
        (status.phase, status.reason),
        (Phase::Stopped, Some(Reason::KilledAfterGrace))
    );
    assert_eq!(result.actions, []);
}

#[test]
fn what_is_not_in_the_set_is_stopped_shipped_and_forgotten() {
    let none = BTreeMap::new();
    let settings = Settings::default();
    let mut local = up(true, at(1));
    let go = |local: &Local| {
        let known: BTreeMap<InstanceId, Local> = BTreeMap::from([(id(A), local.clone())]);
        plan(Some(&none), &known, at(5), &settings).actions
    };
    assert!(matches!(
        go(&local)[..],
        [Action::Stop {
            cause: Cause::Unwanted,
            ..
        }]
    ));
    local.stopping(Cause::Unwanted, at(60));
    local.end(
        &id(A),
        End::Stopped(Reason::StopRequested),
        at(5),
        &settings,
    );
    assert_eq!(go(&local), []);
    local.logs_shipped = true;
    assert_eq!(go(&local), [Action::Forget { id: id(A) }]);
}

#[test]
fn an_exclusive_node_takes_turns() {
    let settings = Settings {
        exclusive: true,
        ..Settings::default()
    };
    let b = "b.1.0.1";
    let ready = Local {
        package: Package::Ready,
        ..Local::default()
    };
    let mut known = BTreeMap::from([(id(A), up(true, at(1))), (id(b), ready)]);
    let desired = set([spec(A, Intent::Stop), spec(b, Intent::Run)]);
    let result = plan(Some(&desired), &known, at(2), &settings);
    assert!(matches!(&result.actions[..], [Action::Stop { .. }]));
    assert_eq!(result.statuses[&id(b)].phase, Phase::Assigned);
    let reason = result.statuses[&id(b)].reason.clone().unwrap().to_string();
    assert!(reason.contains(A), "{reason}");
    known.get_mut(&id(A)).unwrap().end(
        &id(A),
        End::Stopped(Reason::StopRequested),
        at(3),
        &settings,
    );
    let result = plan(Some(&desired), &known, at(3), &settings);
    assert_eq!(
        result.actions,
        [Action::Launch {
            id: id(b),
            start: 1
        }]
    );
}

#[test]
fn what_this_agent_cannot_run_says_so_and_is_not_tried() {
    let mut other = spec(A, Intent::Run);
    other.runtime = RuntimeKind::Kubernetes;
    let result = plan(
        Some(&set([other])),
        &BTreeMap::new(),
        at(1),
        &Settings::default(),
    );
    assert_eq!(result.actions, []);
    let status = &result.statuses[&id(A)];
    assert_eq!(status.phase, Phase::Assigned);
    assert!(matches!(&status.reason, Some(Reason::Node { error }) if error.contains("kubernetes")));
}

#[test]
fn a_package_that_cannot_be_had_is_tried_again_later() {
    let reason = Reason::Package {
        error: "wrong digest".into(),
    };
    let local = Local {
        package: Package::Failed {
            reason: reason.clone(),
            retry: at(30),
        },
        run: Run::default(),
        ..Local::default()
    };
    let (result, status) = one(&local, Intent::Run, at(5));
    assert_eq!((result.actions, result.wake), (vec![], Some(at(30))));
    assert_eq!(
        (status.phase, status.reason),
        (Phase::Preparing, Some(reason))
    );
    assert_eq!(
        one(&local, Intent::Run, at(30)).0.actions,
        [Action::Prepare { id: id(A) }]
    );
}
