//! From what is wanted and what is so to what to do.

use std::collections::BTreeMap;

use berth_model::id::InstanceId;
use berth_model::instance::{InstanceSpec, Intent, Reason};
use berth_model::manifest::default_stop_grace;
use berth_model::time::Monotonic;

use crate::local::{Cause, Local, Package, Run, Up};
use crate::settings::Settings;
use crate::status::{Hold, Status, is_over, refusal, status};
use crate::task::{Input, Stage, Task, UNBEGUN, exceeded};

/// What to do now, what to report, and when to look again.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// What to do, each independent of the others.
    pub actions: Vec<Action>,
    /// Every instance known here, as it is to be reported.
    pub statuses: BTreeMap<InstanceId, Status>,
    /// When time alone changes the plan; none if only news can.
    pub wake: Option<Monotonic>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Fetch and unpack its package.
    Prepare {
        /// Whose.
        id: InstanceId,
    },
    /// Lease a port if it has none, and launch it.
    Launch {
        /// Which.
        id: InstanceId,
        /// Number of the start.
        start: u32,
    },
    /// Fetch the task's input.
    Fetch {
        /// Whose.
        id: InstanceId,
    },
    /// Upload the task's output.
    Upload {
        /// Whose.
        id: InstanceId,
    },
    /// Call off the fetching of the task's input, or the upload of its output.
    Abandon {
        /// Whose.
        id: InstanceId,
    },
    /// Begin its ordered stop.
    Stop {
        /// Which.
        id: InstanceId,
        /// Why.
        cause: Cause,
        /// When it is to be killed if it has not ended.
        kill: Monotonic,
    },
    /// Kill its whole tree, past its supervisor.
    Kill {
        /// Which.
        id: InstanceId,
    },
    /// Delete all of it: it has stopped, is not wanted, and its logs are shipped.
    Forget {
        /// Which.
        id: InstanceId,
    },
}

/// What to do now. `desired` is none as long as no desired set was ever accepted: then nothing is
/// started or stopped.
pub fn plan(
    desired: Option<&BTreeMap<InstanceId, InstanceSpec>>,
    local: &BTreeMap<InstanceId, Local>,
    now: Monotonic,
    settings: &Settings,
) -> Plan {
    let mut plan = Plan::default();
    let spec_of = |id: &InstanceId| desired.and_then(|set| set.get(id));
    let turn = settings.exclusive.then(|| turn(desired, local)).flatten();
    let names = local
        .keys()
        .chain(desired.into_iter().flat_map(BTreeMap::keys));
    let unknown = Local::default();
    for id in names {
        if plan.statuses.contains_key(id) {
            continue;
        }
        let mut one = One {
            id,
            spec: spec_of(id),
            known: desired.is_some(),
            local: local.get(id).unwrap_or(&unknown),
            now,
            settings,
            actions: &mut plan.actions,
            wake: &mut plan.wake,
        };
        let refused = one.spec.and_then(refusal);
        let other = turn.filter(|turn| *turn != id).map(ToString::to_string);
        let hold = match (&refused, &other) {
            (Some(why), _) => Hold::Refused(why),
            (None, Some(other)) => Hold::Exclusive(other),
            (None, None) => Hold::None,
        };
        let status = one.plan(hold);
        plan.statuses.insert(id.clone(), status);
    }
    plan
}

/// Whose turn it is on an exclusive node: one that runs, else one that ran, else the first wanted.
fn turn<'a>(
    desired: Option<&'a BTreeMap<InstanceId, InstanceSpec>>,
    local: &'a BTreeMap<InstanceId, Local>,
) -> Option<&'a InstanceId> {
    let runs = local
        .iter()
        .find(|(_, local)| !matches!(local.run, Run::Down { .. }));
    if let Some((id, _)) = runs {
        return Some(id);
    }
    let wanted = || {
        desired
            .into_iter()
            .flatten()
            .filter(|(_, spec)| spec.intent == Intent::Run && refusal(spec).is_none())
            .filter(|(id, _)| !local.get(*id).is_some_and(Local::is_over))
            .map(|(id, _)| id)
    };
    wanted()
        .find(|id| local.get(*id).is_some_and(|local| local.start > 0))
        .or_else(|| wanted().next())
}

/// The planning of one instance.
struct One<'a> {
    id: &'a InstanceId,
    spec: Option<&'a InstanceSpec>,
    known: bool,
    local: &'a Local,
    now: Monotonic,
    settings: &'a Settings,
    actions: &'a mut Vec<Action>,
    wake: &'a mut Option<Monotonic>,
}

impl<'a> One<'a> {
    fn plan(&mut self, hold: Hold<'_>) -> Status {
        // Before the first desired set nobody has said that anything is not wanted.
        let wanted = !self.settings.ending
            && self
                .spec
                .map_or(!self.known, |spec| spec.intent == Intent::Run)
            && (self.task().is_some() || !is_over(hold, self.local, self.settings));
        match &self.local.run {
            Run::Up(up) => self.up(up, wanted),
            Run::Launching => {}
            Run::Down { .. } if !wanted && self.local.is_busy() => {
                self.actions.push(Action::Abandon {
                    id: self.id.clone(),
                });
            }
            Run::Down { .. } if !wanted => {
                if self.spec.is_none() && (self.local.logs_shipped || self.local.start == 0) {
                    self.actions.push(Action::Forget {
                        id: self.id.clone(),
                    });
                }
            }
            Run::Down { not_before, .. } => match (self.spec, self.task()) {
                (None, _) => {}
                (Some(_), Some(task)) => self.task_down(task, hold),
                (Some(_), None) => self.down(*not_before, hold),
            },
        }
        status(self.spec, wanted, hold, self.local, self.now, self.settings)
    }

    /// What is so of it as a task, if it is one.
    fn task(&self) -> Option<&'a Task> {
        let told = self.spec.is_some_and(|spec| spec.task.is_some());
        self.local.task.as_ref().or(told.then_some(&UNBEGUN))
    }

    fn up(&mut self, up: &Up, wanted: bool) {
        if let Some(stop) = &up.stop {
            match stop.kill {
                Some(at) if at <= self.now => self.actions.push(Action::Kill {
                    id: self.id.clone(),
                }),
                Some(at) => self.wake_at(at),
                None => {}
            }
            return;
        }
        if !wanted {
            return self.stop(Cause::Unwanted);
        }
        if up.hopeless {
            let reason = up.trouble.clone().unwrap_or(Reason::Unknown);
            return self.stop(Cause::Broken(reason));
        }
        if let Some(task) = self.task() {
            return match task.deadline {
                Some(at) if at <= self.now => self.stop(Cause::Broken(exceeded(task))),
                Some(at) => self.wake_at(at),
                None => {}
            };
        }
        let Some(spec) = self.spec else { return };
        let health = &spec.manifest.health;
        match up.passing {
            None => {
                let late = up.since.after(health.start_timeout.0);
                if late <= self.now {
                    self.stop(Cause::Broken(start_timeout(
                        up,
                        health.start_timeout.as_millis(),
                    )));
                } else {
                    self.wake_at(late);
                }
            }
            Some(passing) => {
                let most = health
                    .unhealthy_after
                    .max(1)
                    .saturating_mul(self.settings.restart_unhealthy_factor.max(1));
                if up.failures >= most {
                    let reason = up.trouble.clone().unwrap_or(Reason::Unknown);
                    self.stop(Cause::Broken(reason));
                } else if self.local.ended.is_some() {
                    // The reason of the last restart is shown no longer from then on.
                    let proved = passing.after(self.settings.restart_reset);
                    if proved > self.now {
                        self.wake_at(proved);
                    }
                }
            }
        }
    }

    fn down(&mut self, not_before: Option<Monotonic>, hold: Hold<'_>) {
        if matches!(hold, Hold::Refused(_)) {
            return;
        }
        match &self.local.package {
            // Also for one that waits for its turn, so that it starts at once when that comes.
            Package::Unknown => self.actions.push(Action::Prepare {
                id: self.id.clone(),
            }),
            Package::Preparing { .. } => {}
            Package::Failed { retry, .. } if *retry <= self.now => {
                self.actions.push(Action::Prepare {
                    id: self.id.clone(),
                });
            }
            Package::Failed { retry, .. } => self.wake_at(*retry),
            Package::Ready if hold != Hold::None => {}
            Package::Ready => match not_before {
                Some(at) if at > self.now => self.wake_at(at),
                _ => self.actions.push(Action::Launch {
                    id: self.id.clone(),
                    start: self.local.start.saturating_add(1),
                }),
            },
        }
    }

    /// A task that does not run, and is wanted.
    fn task_down(&mut self, task: &Task, hold: Hold<'_>) {
        let id = || self.id.clone();
        let mut actions = Vec::new();
        match &task.stage {
            Stage::Ended => actions.push(Action::Upload { id: id() }),
            Stage::Open if self.local.start == 0 && !matches!(hold, Hold::Refused(_)) => {
                if self.local.package == Package::Unknown {
                    actions.push(Action::Prepare { id: id() });
                }
                if task.input == Input::Unknown {
                    actions.push(Action::Fetch { id: id() });
                }
                if self.local.is_prepared(task) && hold == Hold::None {
                    actions.push(Action::Launch { id: id(), start: 1 });
                }
            }
            Stage::Open | Stage::Uploading { .. } | Stage::Over { .. } => {}
        }
        self.actions.append(&mut actions);
    }

    fn stop(&mut self, cause: Cause) {
        let grace = self.local.grace.unwrap_or(default_stop_grace().0);
        let kill = self.now.after(grace).after(self.settings.stop_margin);
        self.actions.push(Action::Stop {
            id: self.id.clone(),
            cause,
            kill,
        });
        self.wake_at(kill);
    }

    fn wake_at(&mut self, at: Monotonic) {
        *self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

/// What is known of a start that did not get healthy in time, the most telling first.
fn start_timeout(up: &Up, after_ms: u64) -> Reason {
    match &up.trouble {
        Some(reason @ (Reason::WrongPort { .. } | Reason::PortTaken { .. })) => reason.clone(),
        Some(Reason::ChecksFailed { last_check }) => Reason::StartTimeout {
            last_check: last_check.clone(),
            after_ms,
        },
        Some(other) => Reason::StartTimeout {
            last_check: other.to_string(),
            after_ms,
        },
        None => Reason::StartTimeout {
            last_check: "none was answered".to_owned(),
            after_ms,
        },
    }
}
