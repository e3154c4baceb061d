//! Decisions of an agent that starts its instance once and ends with it.

use std::collections::BTreeMap;

use berth_model::instance::{Intent, Phase, Reason};
use berth_model::node::RuntimeKind;
use berth_model::time::Monotonic;

use crate::testing::{id, set, spec};
use crate::{Action, Cause, End, Local, Package, Plan, Settings, plan};

const A: &str = "a.1.0.1";

fn settings(ending: bool) -> Settings {
    Settings {
        once: true,
        ending,
        ..Settings::default()
    }
}

fn go(local: &Local, ending: bool) -> Plan {
    let known = BTreeMap::from([(id(A), local.clone())]);
    let desired = set([spec(A, Intent::Run)]);
    plan(Some(&desired), &known, Monotonic(9_000), &settings(ending))
}

fn up() -> Local {
    let mut local = Local {
        package: Package::Ready,
        ..Local::default()
    };
    local.launching(1);
    local.launched(Some(42), true, Monotonic(1_000));
    local
}

#[test]
fn what_has_ended_has_stopped_for_good() {
    let ready = Local {
        package: Package::Ready,
        ..Local::default()
    };
    assert_eq!(
        go(&ready, false).actions,
        [Action::Launch {
            id: id(A),
            start: 1
        }]
    );
    let mut local = up();
    assert_eq!(go(&local, false).actions, []);
    let reason = Reason::Exited {
        process: "module".into(),
        code: 0,
    };
    local.end(
        &id(A),
        End::ByItself(reason.clone()),
        Monotonic(2_000),
        &settings(false),
    );
    let plan = go(&local, false);
    assert_eq!((plan.actions, plan.wake), (vec![], None));
    let status = &plan.statuses[&id(A)];
    assert_eq!(
        (status.phase, status.reason.clone()),
        (Phase::Stopped, Some(reason))
    );
}

#[test]
fn what_cannot_be_started_has_stopped_and_says_why() {
    let reason = Reason::Package {
        error: "a wheel is missing".into(),
    };
    let local = Local {
        package: Package::Failed {
            reason: reason.clone(),
            retry: Monotonic(1),
        },
        ..Local::default()
    };
    let result = go(&local, false);
    assert_eq!(result.actions, []);
    let status = &result.statuses[&id(A)];
    assert_eq!(
        (status.phase, status.reason.clone()),
        (Phase::Stopped, Some(reason))
    );
    let mut other = spec(A, Intent::Run);
    other.runtime = RuntimeKind::Kubernetes;
    let result = plan(
        Some(&set([other])),
        &BTreeMap::new(),
        Monotonic(1),
        &settings(false),
    );
    let status = &result.statuses[&id(A)];
    assert_eq!((result.actions, status.phase), (vec![], Phase::Stopped));
    assert!(status.reason.is_some());
}

#[test]
fn an_agent_that_ends_stops_what_is_wanted_and_starts_nothing() {
    let ready = Local {
        package: Package::Ready,
        ..Local::default()
    };
    let result = go(&ready, true);
    assert_eq!(
        (result.actions, result.statuses[&id(A)].phase),
        (vec![], Phase::Stopped)
    );
    let result = go(&up(), true);
    assert!(matches!(
        &result.actions[..],
        [Action::Stop {
            cause: Cause::Unwanted,
            ..
        }]
    ));
}
