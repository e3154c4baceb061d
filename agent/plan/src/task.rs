//! Tasks of jobs: instances that run once, to their end, and leave an output.
//!
//! A task goes from [`Stage::Open`] over its one start to [`Stage::Over`], never back. Whatever ends its
//! start, or keeps it from starting, ends the task on this node: the next attempt is the coordinator's to make.

use std::time::Duration;

use berth_model::instance::Reason;
use berth_model::job::{DRIVER_PROCESS, JOB_PROCESS, TaskOutput};
use berth_model::time::Monotonic;

use crate::local::{Cause, End, Local, Package, Run};

/// What is so of an instance that is a task.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Task {
    /// The longest it may run.
    pub limit: Option<Duration>,
    /// When it has run too long; set before its launch.
    pub deadline: Option<Monotonic>,
    /// Its input on this node.
    pub input: Input,
    /// How far it is.
    pub stage: Stage,
}

/// A task's input on this node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Input {
    /// Not asked for.
    #[default]
    Unknown,
    /// Being fetched.
    Fetching {
        /// Why it takes long, if it does (it is tried again by itself).
        trouble: Option<Reason>,
    },
    /// Complete.
    Ready,
}

/// How far a task is.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Stage {
    /// Its one start has not ended.
    #[default]
    Open,
    /// Its start ended well; the output is to be uploaded.
    Ended,
    /// The output is on its way, tried again until it is there.
    Uploading {
        /// Why it takes long, if it does.
        trouble: Option<Reason>,
    },
    /// Nothing of it will happen any more; the instance's `ended` says why.
    Over {
        /// What it left on the coordinator's disk, if it did all of its work.
        output: Option<TaskOutput>,
    },
}

/// A task of which nothing is known yet.
pub(crate) static UNBEGUN: Task = Task {
    limit: None,
    deadline: None,
    input: Input::Unknown,
    stage: Stage::Open,
};

/// Whether a start that ended so did all of its work: its worker, by itself, with code 0. A module that
/// ends before the driver did not, whatever its code.
fn did_all(reason: &Reason) -> bool {
    matches!(reason, Reason::Exited { process, code: 0 }
        if process == JOB_PROCESS || process == DRIVER_PROCESS)
}

impl Local {
    /// It is a task. To be told whenever its specification becomes known.
    pub fn is_task(&mut self, limit: Option<Duration>, now: Monotonic) {
        if self.task.is_some() {
            return;
        }
        self.task = Some(Task {
            limit,
            ..Task::default()
        });
        match &mut self.run {
            // Adopted before it was known what it is.
            Run::Up(up) => {
                up.passing.get_or_insert(up.since);
                self.runs_from(now);
            }
            Run::Launching => self.runs_from(now),
            Run::Down { .. } if self.start > 0 => {
                self.conclude(self.ended.clone().unwrap_or(Reason::SupervisorLost));
            }
            Run::Down { .. } => {}
        }
    }

    /// Its launch is next: its deadline counts from now on, unless it does already.
    pub fn runs_from(&mut self, now: Monotonic) {
        if let Some(task) = &mut self.task
            && task.deadline.is_none()
        {
            task.deadline = task.limit.map(|limit| now.after(limit));
        }
    }

    /// Every start of it that there is a trace of was adopted. One of which there is none may have run.
    pub fn untraced(&mut self) {
        let open = matches!(&self.task, Some(task) if task.stage == Stage::Open);
        if open && self.start > 0 && matches!(self.run, Run::Down { .. }) {
            let reason = Reason::Node {
                error: "the agent ended while it started the task, and whether it ran is not known"
                    .to_owned(),
            };
            self.over(self.ended.clone().unwrap_or(reason), None);
        }
    }

    /// Its package or its input cannot be had: it is over without a start.
    pub fn unprepared(&mut self, reason: Reason) {
        if self.start == 0 && matches!(self.run, Run::Down { .. }) {
            self.over(reason, None);
        }
    }

    /// Its input made progress.
    pub fn input(&mut self, input: Input) {
        if let Some(task) = &mut self.task
            && matches!(task.input, Input::Fetching { .. })
        {
            task.input = input;
        }
    }

    /// Its input is being fetched.
    pub fn fetching(&mut self) {
        if let Some(task) = &mut self.task {
            task.input = Input::Fetching { trouble: None };
        }
    }

    /// Its output is being uploaded, with trouble or not.
    pub fn uploading(&mut self, trouble: Option<Reason>) {
        if let Some(task) = &mut self.task
            && matches!(task.stage, Stage::Ended | Stage::Uploading { .. })
        {
            task.stage = Stage::Uploading { trouble };
        }
    }

    /// Its output is on the coordinator's disk.
    pub fn uploaded(&mut self, output: TaskOutput) {
        if self.uploads() {
            self.over(Reason::Completed, Some(output));
        }
    }

    /// Its output cannot be used, or is not taken.
    pub fn upload_failed(&mut self, reason: Reason) {
        if self.uploads() {
            self.over(reason, None);
        }
    }

    /// What goes on for it beside its start is called off: it is not wanted any more.
    pub fn abandon(&mut self) {
        if self.uploads() {
            self.over(Reason::StopRequested, None);
        }
        if let Some(task) = &mut self.task
            && matches!(task.input, Input::Fetching { .. })
        {
            task.input = Input::Unknown;
        }
    }

    /// Nothing of this task will happen any more.
    pub fn is_over(&self) -> bool {
        matches!(&self.task, Some(task) if matches!(task.stage, Stage::Over { .. }))
    }

    /// What it left on the coordinator's disk, if it did all of its work.
    pub fn output(&self) -> Option<&TaskOutput> {
        match &self.task.as_ref()?.stage {
            Stage::Over { output } => output.as_ref(),
            _ => None,
        }
    }

    /// Whether its output is to be uploaded, or on its way.
    pub(crate) fn uploads(&self) -> bool {
        matches!(&self.task, Some(task) if matches!(task.stage, Stage::Ended | Stage::Uploading { .. }))
    }

    /// Whether something goes on for it beside its start.
    pub(crate) fn is_busy(&self) -> bool {
        let fetching =
            matches!(&self.task, Some(task) if matches!(task.input, Input::Fetching { .. }));
        self.uploads() || fetching
    }

    /// Whether everything that its launch needs is there.
    pub(crate) fn is_prepared(&self, task: &Task) -> bool {
        self.package == Package::Ready && task.input == Input::Ready
    }

    /// The one start of a task ended. `cause`: it was being stopped.
    pub(crate) fn task_ended(&mut self, cause: Option<Cause>, end: End, now: Monotonic) {
        let task = self.task.clone().unwrap_or_default();
        let late = task.deadline.is_some_and(|deadline| deadline <= now);
        self.conclude(match (cause, end) {
            (_, End::Rebooted) => Reason::Rebooted,
            // It may have been done just before it was told to stop.
            (_, End::ByItself(reason)) if did_all(&reason) => reason,
            (Some(Cause::Broken(reason)), _) => reason,
            // Told to stop by an agent that was killed before it saw the end.
            (None, End::Stopped(_)) if late => exceeded(&task),
            (_, End::ByItself(reason) | End::Stopped(reason)) => reason,
        });
    }

    /// Its one start ended with a reason.
    pub(crate) fn conclude(&mut self, reason: Reason) {
        if !did_all(&reason) {
            return self.over(reason, None);
        }
        if let Some(task) = &mut self.task {
            task.stage = Stage::Ended;
        }
        self.ended = Some(reason);
        self.run = Run::default();
    }

    fn over(&mut self, reason: Reason, output: Option<TaskOutput>) {
        if let Some(task) = &mut self.task {
            task.stage = Stage::Over { output };
            self.ended = Some(reason);
            self.run = Run::default();
        }
    }
}

/// It ran longer than its deadline.
pub(crate) fn exceeded(task: &Task) -> Reason {
    let after = task.limit.unwrap_or_default().as_millis();
    Reason::DeadlineExceeded {
        after_ms: u64::try_from(after).unwrap_or(u64::MAX),
    }
}
