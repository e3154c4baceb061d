//! Tasks: single decisions, and what holds whatever happens.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_model::instance::{InstanceSpec, Intent, Phase, Reason};
use berth_model::job::{ShardInput, TaskOutput, TaskSpec};
use berth_model::time::{Monotonic, Span};
use proptest::prelude::*;

use crate::testing::{id, set, spec};
use crate::{Action, Cause, End, Input, Local, Package, Plan, Run, Settings, Stage, Status, plan};

const T: &str = "score.1.2.1";

fn task(intent: Intent) -> InstanceSpec {
    InstanceSpec {
        task: Some(TaskSpec {
            index: 2,
            completions: 4,
            input: ShardInput::default(),
            deadline: Some(Span::secs(60)),
        }),
        ..spec(T, intent)
    }
}

fn output() -> TaskOutput {
    TaskOutput {
        blob: format!("blake3:{}", "ab".repeat(32)).parse().unwrap(),
        bytes: 3,
        folder: false,
    }
}

fn exited(process: &str, code: i32) -> End {
    let process = process.to_owned();
    End::ByItself(Reason::Exited { process, code })
}

fn at(seconds: u64) -> Monotonic {
    Monotonic(seconds * 1000)
}

/// A task that was launched at second 1.
fn running() -> Local {
    let mut local = Local {
        package: Package::Ready,
        port: Some(21_000),
        ..Local::default()
    };
    local.is_task(Some(Duration::from_secs(60)), at(1));
    local.fetching();
    local.input(Input::Ready);
    local.runs_from(at(1));
    local.launching(1);
    local.launched(Some(7), false, at(1));
    local
}

fn one(local: &Local, intent: Intent, now: Monotonic) -> (Plan, Status) {
    let known = BTreeMap::from([(id(T), local.clone())]);
    let result = plan(
        Some(&set([task(intent)])),
        &known,
        now,
        &Settings::default(),
    );
    let status = result.statuses[&id(T)].clone();
    (result, status)
}

fn ended(end: End) -> Local {
    let mut local = running();
    local.end(&id(T), end, at(5), &Settings::default());
    local
}

#[test]
fn package_and_input_come_together_and_then_the_one_launch() {
    let mut local = Local::default();
    local.is_task(None, at(1));
    let (result, status) = one(&local, Intent::Run, at(1));
    let (prepare, fetch) = (Action::Prepare { id: id(T) }, Action::Fetch { id: id(T) });
    assert_eq!(result.actions, [prepare, fetch]);
    assert_eq!(status.phase, Phase::Assigned);
    local.package = Package::Ready;
    local.fetching();
    let trouble = Reason::Node {
        error: "slow".into(),
    };
    local.input(Input::Fetching {
        trouble: Some(trouble.clone()),
    });
    let (result, status) = one(&local, Intent::Run, at(1));
    assert_eq!((result.actions, status.phase), (vec![], Phase::Preparing));
    assert_eq!(status.reason, Some(trouble));
    local.input(Input::Ready);
    let launch = Action::Launch {
        id: id(T),
        start: 1,
    };
    assert_eq!(one(&local, Intent::Run, at(1)).0.actions, [launch]);
}

#[test]
fn a_task_that_runs_is_healthy_without_a_check_and_reached_by_nobody() {
    let (result, status) = one(&running(), Intent::Run, at(2));
    assert_eq!((status.phase, status.address), (Phase::Healthy, None));
    assert_eq!((result.actions, result.wake), (vec![], Some(at(61))));
}

#[test]
fn only_the_workers_own_zero_is_success() {
    for process in ["job", "driver"] {
        let local = ended(exited(process, 0));
        let (result, status) = one(&local, Intent::Run, at(6));
        assert_eq!(result.actions, [Action::Upload { id: id(T) }]);
        assert_eq!((status.phase, status.reason), (Phase::Stopping, None));
    }
    let lost = End::ByItself(Reason::SupervisorLost);
    for end in [
        exited("driver", 5),
        exited("module", 0),
        lost,
        End::Rebooted,
    ] {
        let local = ended(end);
        let (result, status) = one(&local, Intent::Run, at(6));
        assert_eq!((result.actions, result.wake), (vec![], None));
        assert_eq!(
            (status.phase, &status.reason),
            (Phase::Stopped, &local.ended)
        );
        assert!(status.reason.is_some() && status.output.is_none());
    }
}

#[test]
fn completed_is_said_with_the_output_and_not_before_it_is_there() {
    let mut local = ended(exited("driver", 0));
    let trouble = Reason::Node {
        error: "the coordinator is away".into(),
    };
    local.uploading(Some(trouble.clone()));
    let (result, status) = one(&local, Intent::Run, at(6));
    assert_eq!((result.actions, status.phase), (vec![], Phase::Stopping));
    assert_eq!(status.reason, Some(trouble));
    local.uploaded(output());
    let (result, status) = one(&local, Intent::Run, at(6));
    assert_eq!((result.actions, status.phase), (vec![], Phase::Stopped));
    assert_eq!(
        (status.reason, status.output),
        (Some(Reason::Completed), Some(output()))
    );
    local.upload_failed(Reason::SupervisorLost);
    assert_eq!(local.ended, Some(Reason::Completed), "it is over");
}

#[test]
fn a_deadline_stops_it_in_order_and_is_the_reason_also_for_the_next_agent() {
    let mut local = running();
    let (result, _) = one(&local, Intent::Run, at(61));
    let reason = Reason::DeadlineExceeded { after_ms: 60_000 };
    let cause = Cause::Broken(reason.clone());
    let kill = at(76);
    assert_eq!(
        result.actions,
        [Action::Stop {
            id: id(T),
            cause: cause.clone(),
            kill
        }]
    );
    let mut next = local.clone();
    local.stopping(cause, kill);
    for local in [&mut local, &mut next] {
        let end = End::Stopped(Reason::StopRequested);
        local.end(&id(T), end, at(62), &Settings::default());
        assert_eq!(
            one(local, Intent::Run, at(62)).1.reason,
            Some(reason.clone())
        );
        assert!(local.is_over());
    }
}

#[test]
fn what_keeps_it_from_starting_ends_it() {
    let mut local = Local::default();
    local.is_task(None, at(1));
    local.unprepared(Reason::Package {
        error: "wrong digest".into(),
    });
    let (result, status) = one(&local, Intent::Run, at(2));
    assert_eq!((result.actions, status.phase), (vec![], Phase::Stopped));
    let mut local = Local {
        package: Package::Ready,
        ..Local::default()
    };
    local.is_task(None, at(1));
    local.launching(1);
    local.launch_failed(&id(T), Reason::SupervisorLost, at(1), &Settings::default());
    let (result, status) = one(&local, Intent::Run, at(900));
    assert_eq!((result.actions, status.phase), (vec![], Phase::Stopped));
}

#[test]
fn an_upload_that_is_not_wanted_any_more_is_called_off() {
    let mut local = ended(exited("job", 0));
    local.uploading(None);
    let (result, status) = one(&local, Intent::Stop, at(6));
    assert_eq!(result.actions, [Action::Abandon { id: id(T) }]);
    assert_eq!(status.phase, Phase::Stopping);
    local.abandon();
    let (result, status) = one(&local, Intent::Stop, at(6));
    assert_eq!((result.actions, status.phase), (vec![], Phase::Stopped));
    assert_eq!(status.reason, Some(Reason::StopRequested));
}

#[test]
fn one_that_is_over_gives_an_exclusive_node_free() {
    let settings = Settings {
        exclusive: true,
        ..Settings::default()
    };
    let next = "z.1.0.1";
    let ready = Local {
        package: Package::Ready,
        ..Local::default()
    };
    let desired = set([task(Intent::Run), spec(next, Intent::Run)]);
    let mut known = BTreeMap::from([(id(T), running()), (id(next), ready)]);
    assert_eq!(plan(Some(&desired), &known, at(2), &settings).actions, []);
    known.insert(id(T), ended(exited("job", 1)));
    let launch = Action::Launch {
        id: id(next),
        start: 1,
    };
    let result = plan(Some(&desired), &known, at(6), &settings);
    assert_eq!(result.actions, [launch]);
    assert_eq!(result.statuses[&id(T)].phase, Phase::Stopped);
}

#[test]
fn a_start_that_was_adopted_unknown_is_not_run_again_once_it_is_known_as_a_task() {
    for (end, done) in [(exited("job", 0), true), (exited("job", 1), false)] {
        let mut local = Local {
            start: 1,
            ..Local::default()
        };
        local.launched(None, false, at(1));
        local.end(&id(T), end, at(2), &Settings::default());
        local.is_task(None, at(3));
        let actions = one(&local, Intent::Run, at(900)).0.actions;
        let upload = vec![Action::Upload { id: id(T) }];
        assert_eq!(actions, if done { upload } else { vec![] });
    }
}

/// What may happen to a task.
#[derive(Debug, Clone)]
enum News {
    Want(Option<Intent>),
    Wait(u64),
    Package(bool),
    Input(bool),
    Launched(bool),
    Ends(&'static str, i32),
    Lost,
    Rebooted,
    Uploaded(bool),
    /// The agent is killed and another adopts what it finds.
    Restart,
}

fn news() -> impl Strategy<Value = News> {
    let intent = prop_oneof![
        6 => Just(Some(Intent::Run)),
        1 => Just(Some(Intent::Stop)),
        1 => Just(None)
    ];
    let process = prop_oneof![Just("driver"), Just("module"), Just("job")];
    prop_oneof![
        2 => intent.prop_map(News::Want),
        2 => (1u64..40_000).prop_map(News::Wait),
        3 => prop::bool::weighted(0.8).prop_map(News::Package),
        3 => prop::bool::weighted(0.8).prop_map(News::Input),
        3 => prop::bool::weighted(0.8).prop_map(News::Launched),
        3 => (process, 0..2).prop_map(|(process, code)| News::Ends(process, code)),
        1 => Just(News::Lost),
        1 => Just(News::Rebooted),
        2 => prop::bool::weighted(0.7).prop_map(News::Uploaded),
        2 => Just(News::Restart),
    ]
}

struct Node {
    desired: BTreeMap<berth_model::id::InstanceId, InstanceSpec>,
    local: BTreeMap<berth_model::id::InstanceId, Local>,
    now: Monotonic,
    launches: u32,
    acknowledged: bool,
    stopped: bool,
}

impl Node {
    fn hear(&mut self, news: &News) {
        let (now, settings) = (self.now, Settings::default());
        match news {
            News::Want(Some(intent)) => {
                self.desired.insert(id(T), task(*intent));
                let local = self.local.entry(id(T)).or_default();
                local.is_task(Some(Duration::from_secs(60)), now);
            }
            News::Want(None) => _ = self.desired.remove(&id(T)),
            News::Wait(ms) => self.now = now.after(Duration::from_millis(*ms)),
            _ => {}
        }
        let Some(local) = self.local.get_mut(&id(T)) else {
            return;
        };
        let broken = Reason::Node {
            error: "broken".into(),
        };
        match news {
            News::Package(true) if local.package != Package::Unknown => {
                local.package = Package::Ready;
            }
            News::Package(false) if local.package != Package::Ready => local.unprepared(broken),
            News::Input(true) => local.input(Input::Ready),
            News::Input(false) => local.unprepared(broken),
            News::Launched(ok) if local.run == Run::Launching => {
                if *ok {
                    local.launched(Some(7), false, now);
                } else {
                    local.launch_failed(&id(T), broken, now, &settings);
                }
            }
            News::Ends(process, code) if local.up().is_some() => {
                let stopped = local.up().is_some_and(|up| up.stop.is_some()) && *code != 0;
                let end = if stopped {
                    End::Stopped(Reason::KilledAfterGrace)
                } else {
                    exited(process, *code)
                };
                local.end(&id(T), end, now, &settings);
            }
            News::Lost if local.up().is_some() => {
                local.end(
                    &id(T),
                    End::ByItself(Reason::SupervisorLost),
                    now,
                    &settings,
                );
            }
            News::Rebooted if local.up().is_some() => {
                local.end(&id(T), End::Rebooted, now, &settings)
            }
            News::Uploaded(ok) if matches!(&local.task, Some(task) if matches!(task.stage, Stage::Uploading { .. })) =>
            {
                self.acknowledged |= *ok;
                if *ok {
                    local.uploaded(output());
                } else {
                    local.upload_failed(broken);
                }
            }
            News::Restart => self.restart(),
            _ => {}
        }
    }

    /// What an agent finds: the number of the start, the deadline, and how the start ended.
    fn restart(&mut self) {
        let Some(old) = self.local.remove(&id(T)) else {
            return;
        };
        let mut local = Local {
            start: old.start,
            ..Local::default()
        };
        if let (Some(_), Some(task)) = (self.desired.get(&id(T)), &old.task) {
            local.is_task(task.limit, self.now);
            if let Some(found) = &mut local.task {
                found.deadline = task.deadline;
            }
        }
        let stage = old.task.as_ref().map(|task| task.stage.clone());
        match (&old.run, stage) {
            (Run::Up(_) | Run::Launching, _) => local.launched(Some(7), false, self.now),
            (Run::Down { .. }, _) if old.start == 0 => {}
            (
                _,
                Some(Stage::Over {
                    output: Some(output),
                }),
            ) => {
                local.conclude(exited_reason());
                local.uploaded(output);
            }
            (_, Some(Stage::Ended | Stage::Uploading { .. })) => local.conclude(exited_reason()),
            _ => local.conclude(old.ended.unwrap_or(Reason::Unknown)),
        }
        self.local.insert(id(T), local);
    }

    fn step(&mut self) -> Plan {
        let plan = plan(
            Some(&self.desired),
            &self.local,
            self.now,
            &Settings::default(),
        );
        if let Some(status) = plan.statuses.get(&id(T)) {
            let completed = status.reason == Some(Reason::Completed);
            assert!(
                !completed || self.acknowledged,
                "completed before the upload was acknowledged"
            );
            assert_eq!(completed, status.output.is_some());
            self.stopped = status.phase == Phase::Stopped;
        }
        for action in &plan.actions {
            let local = self.local.entry(id(T)).or_default();
            match action {
                Action::Prepare { .. } => local.package = Package::Preparing { trouble: None },
                Action::Fetch { .. } => local.fetching(),
                Action::Launch { start, .. } => {
                    self.launches += 1;
                    assert!(self.launches <= 1, "launched twice");
                    assert_eq!(self.desired[&id(T)].intent, Intent::Run);
                    local.runs_from(self.now);
                    local.launching(*start);
                }
                Action::Upload { .. } => local.uploading(None),
                Action::Abandon { .. } => local.abandon(),
                Action::Stop { cause, kill, .. } => local.stopping(cause.clone(), *kill),
                Action::Kill { .. } => local.killed(),
                // A task that is forgotten and wanted again would be another attempt.
                Action::Forget { .. } => {}
            }
        }
        plan
    }
}

fn exited_reason() -> Reason {
    Reason::Exited {
        process: "driver".into(),
        code: 0,
    }
}

proptest! {
    #[test]
    fn at_most_one_launch_and_always_an_end(history in prop::collection::vec(news(), 0..80), code in 0..2) {
        let mut node = Node {
            desired: BTreeMap::new(),
            local: BTreeMap::new(),
            now: Monotonic(1),
            launches: 0,
            acknowledged: false,
            stopped: false,
        };
        node.hear(&News::Want(Some(Intent::Run)));
        for news in &history {
            node.hear(news);
            node.step();
        }
        if !node.desired.contains_key(&id(T)) {
            node.hear(&News::Want(Some(Intent::Run)));
        }
        // From now on everything that is under way comes to its end.
        for _ in 0..12 {
            node.step();
            for news in [
                News::Package(true),
                News::Input(true),
                News::Launched(true),
                News::Ends("driver", code),
                News::Uploaded(true),
            ] {
                node.hear(&news);
                node.step();
            }
        }
        let plan = node.step();
        prop_assert!(node.stopped, "{:?}", node.local);
        prop_assert!(plan.actions.iter().all(|action| matches!(action, Action::Forget { .. })), "{plan:?}");
    }
}
