//! Properties that hold whatever happens, on a simulated node.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_model::id::InstanceId;
use berth_model::instance::{InstanceSpec, Intent, Phase, Reason};
use berth_model::time::Monotonic;
use proptest::prelude::*;

use crate::testing::{id, spec};
use crate::{Action, Cause, Check, End, Local, Package, Plan, Run, Settings, plan};

const NAMES: [&str; 3] = ["a.1.0.1", "b.1.0.1", "c.2.1.4"];

/// News, to the instance of a number.
#[derive(Debug, Clone)]
enum News {
    Want(usize, Option<Intent>),
    Pass,
    Wait(u64),
    PackageReady(usize),
    PackageFails(usize),
    Launched(usize),
    LaunchFails(usize),
    Check(usize, bool),
    Ends(usize),
    Rebooted(usize),
    Shipped(usize),
}

fn news() -> impl Strategy<Value = News> {
    let which = 0..NAMES.len();
    let intent = prop_oneof![
        3 => Just(Some(Intent::Run)),
        1 => Just(Some(Intent::Stop)),
        1 => Just(None)
    ];
    prop_oneof![
        3 => (which.clone(), intent).prop_map(|(i, intent)| News::Want(i, intent)),
        1 => Just(News::Pass),
        3 => (1u64..20_000).prop_map(News::Wait),
        3 => which.clone().prop_map(News::PackageReady),
        1 => which.clone().prop_map(News::PackageFails),
        4 => which.clone().prop_map(News::Launched),
        1 => which.clone().prop_map(News::LaunchFails),
        4 => (which.clone(), any::<bool>()).prop_map(|(i, ok)| News::Check(i, ok)),
        3 => which.clone().prop_map(News::Ends),
        1 => which.clone().prop_map(News::Rebooted),
        2 => which.prop_map(News::Shipped),
    ]
}

fn at(all: &mut BTreeMap<InstanceId, Local>, i: usize) -> Option<(InstanceId, &mut Local)> {
    let id = id(NAMES[i]);
    all.get_mut(&id).map(|local| (id, local))
}

struct Node {
    desired: BTreeMap<InstanceId, InstanceSpec>,
    local: BTreeMap<InstanceId, Local>,
    now: Monotonic,
    settings: Settings,
}

impl Node {
    fn new(exclusive: bool) -> Self {
        let settings = Settings {
            exclusive,
            ..Settings::default()
        };
        Self {
            desired: BTreeMap::new(),
            local: BTreeMap::new(),
            now: Monotonic(1),
            settings,
        }
    }

    fn hear(&mut self, news: &News) {
        let (now, settings) = (self.now, &self.settings);
        match news {
            News::Want(i, Some(intent)) => {
                self.desired.insert(id(NAMES[*i]), spec(NAMES[*i], *intent));
            }
            News::Want(i, None) => {
                self.desired.remove(&id(NAMES[*i]));
            }
            News::Pass => {}
            News::Wait(ms) => self.now = now.after(Duration::from_millis(*ms)),
            News::PackageReady(i) | News::PackageFails(i) => {
                if let Some((_, local)) = at(&mut self.local, *i)
                    && matches!(local.package, Package::Preparing { .. })
                {
                    local.package = if matches!(news, News::PackageReady(_)) {
                        Package::Ready
                    } else {
                        let reason = Reason::Package {
                            error: "broken".into(),
                        };
                        Package::Failed {
                            reason,
                            retry: now.after(Duration::from_secs(5)),
                        }
                    };
                }
            }
            News::Launched(i) | News::LaunchFails(i) => {
                if let Some((id, local)) = at(&mut self.local, *i)
                    && local.run == Run::Launching
                {
                    if matches!(news, News::Launched(_)) {
                        local.launched(Some(7), false, now);
                    } else {
                        let reason = Reason::Node { error: "no".into() };
                        local.launch_failed(&id, reason, now, settings);
                    }
                }
            }
            News::Check(i, ok) => {
                if let Some((_, local)) = at(&mut self.local, *i) {
                    let failed = Check::Failed(Reason::ChecksFailed {
                        last_check: "no".into(),
                    });
                    local.checked(if *ok { Check::Passed } else { failed }, 2, now);
                }
            }
            News::Ends(i) | News::Rebooted(i) => {
                if let Some((id, local)) = at(&mut self.local, *i)
                    && let Some(up) = local.up()
                {
                    let end = match news {
                        News::Rebooted(_) => End::Rebooted,
                        _ if up.stop.is_some() => End::Stopped(Reason::StopRequested),
                        _ => End::ByItself(Reason::Exited {
                            process: "module".into(),
                            code: 1,
                        }),
                    };
                    local.end(&id, end, now, settings);
                }
            }
            News::Shipped(i) => {
                if let Some((_, local)) = at(&mut self.local, *i)
                    && matches!(local.run, Run::Down { .. })
                {
                    local.logs_shipped = true;
                }
            }
        }
    }

    fn step(&mut self) -> Plan {
        let plan = plan(Some(&self.desired), &self.local, self.now, &self.settings);
        self.check(&plan);
        for action in &plan.actions {
            self.act(action);
        }
        self.check_exclusive();
        plan
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Prepare { id } => {
                let local = self.local.entry(id.clone()).or_default();
                local.package = Package::Preparing { trouble: None };
            }
            Action::Launch { id, start } => {
                let local = self.local.get_mut(id).unwrap();
                assert!(
                    matches!(local.run, Run::Down { .. }),
                    "launched twice: {local:?}"
                );
                assert_eq!(local.package, Package::Ready);
                assert_eq!(*start, local.start + 1);
                assert_eq!(self.desired[id].intent, Intent::Run);
                if let Run::Down {
                    not_before: Some(at),
                    ..
                } = local.run
                {
                    assert!(at <= self.now);
                }
                local.port = Some(21_000);
                local.launching(*start);
            }
            Action::Stop { id, cause, kill } => {
                let local = self.local.get_mut(id).unwrap();
                assert!(local.up().is_some_and(|up| up.stop.is_none()));
                let wanted = self
                    .desired
                    .get(id)
                    .is_some_and(|spec| spec.intent == Intent::Run);
                assert_eq!(*cause == Cause::Unwanted, !wanted);
                local.stopping(cause.clone(), *kill);
            }
            Action::Kill { id } => self.local.get_mut(id).unwrap().killed(),
            Action::Fetch { .. } | Action::Upload { .. } | Action::Abandon { .. } => {
                panic!("these are no tasks: {action:?}")
            }
            Action::Forget { id } => {
                assert!(!self.desired.contains_key(id));
                let local = self.local.remove(id).unwrap();
                assert!(matches!(local.run, Run::Down { .. }));
                assert!(local.logs_shipped || local.start == 0);
            }
        }
    }

    fn check(&self, plan: &Plan) {
        for id in self.desired.keys().chain(self.local.keys()) {
            assert!(plan.statuses.contains_key(id));
        }
        for (id, status) in &plan.statuses {
            let up = self.local.get(id).and_then(Local::up);
            if status.phase == Phase::Healthy {
                assert!(up.is_some_and(|up| up.passing.is_some() && up.stop.is_none()));
                assert!(status.address.is_some());
            }
            if status.phase == Phase::Stopped {
                assert!(up.is_none());
            }
            if status.phase == Phase::Unhealthy {
                assert!(status.reason.is_some());
            }
        }
        if let Some(wake) = plan.wake {
            assert!(wake > self.now, "it would spin");
        }
    }

    fn check_exclusive(&self) {
        let live = self
            .local
            .values()
            .filter(|local| !matches!(local.run, Run::Down { .. }))
            .count();
        assert!(!self.settings.exclusive || live <= 1, "{:?}", self.local);
    }

    /// Everything goes well from now on.
    fn settle(&mut self) {
        for _ in 0..200 {
            let plan = self.step();
            if plan.actions.is_empty() {
                match plan.wake {
                    Some(wake) => self.now = wake,
                    None => self.now = self.now.after(Duration::from_millis(100)),
                }
            }
            for (i, name) in NAMES.iter().enumerate() {
                self.hear(&News::PackageReady(i));
                self.hear(&News::Launched(i));
                self.hear(&News::Shipped(i));
                let stopping = self
                    .local
                    .get(&id(name))
                    .and_then(Local::up)
                    .is_some_and(|up| up.stop.is_some());
                self.hear(&if stopping {
                    News::Ends(i)
                } else {
                    News::Check(i, true)
                });
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_rules_hold_and_good_times_converge(
        exclusive: bool,
        history in prop::collection::vec(news(), 0..120),
    ) {
        let mut node = Node::new(exclusive);
        for news in &history {
            node.hear(news);
            node.step();
        }
        node.settle();
        let plan = node.step();
        prop_assert!(plan.actions.is_empty(), "{plan:?}");
        let mut running = 0;
        for (id, spec) in &node.desired {
            let phase = plan.statuses[id].phase;
            match spec.intent {
                Intent::Stop => prop_assert_eq!(phase, Phase::Stopped),
                Intent::Run if phase == Phase::Healthy => running += 1,
                Intent::Run => prop_assert!(exclusive && phase == Phase::Assigned, "{plan:?}"),
            }
        }
        let wanted = node.desired.values().filter(|spec| spec.intent == Intent::Run).count();
        prop_assert_eq!(running, if exclusive { wanted.min(1) } else { wanted });
        prop_assert!(node.local.keys().all(|id| node.desired.contains_key(id)));
    }
}

#[test]
fn nothing_is_stopped_or_started_before_the_first_desired_set() {
    let mut local = Local::default();
    local.launching(3);
    local.launched(Some(1), true, Monotonic(5));
    let known = BTreeMap::from([(id("a.1.0.1"), local), (id("b.1.0.1"), Local::default())]);
    let result = plan(None, &known, Monotonic(1_000_000), &Settings::default());
    assert_eq!(result.actions, []);
    assert_eq!(result.statuses[&id("a.1.0.1")].phase, Phase::Healthy);
}
