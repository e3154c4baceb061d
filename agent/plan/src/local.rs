//! What is so of one instance on this node, and how news change it.

use std::net::IpAddr;
use std::time::Duration;

use berth_model::digest::PackageDigest;
use berth_model::id::InstanceId;
use berth_model::instance::Reason;
use berth_model::time::Monotonic;

use crate::settings::Settings;
use crate::task::Task;

/// What is so of one instance.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Local {
    /// The package that it runs.
    pub digest: Option<PackageDigest>,
    /// Its package on this node.
    pub package: Package,
    /// Where its current start listens, if not at the configured address.
    pub host: Option<IpAddr>,
    /// The port it holds.
    pub port: Option<u16>,
    /// The port of its module, where that is not the instance's: predictions go to its transform.
    pub module_port: Option<u16>,
    /// Number of its current or last start; 0 before the first.
    pub start: u32,
    /// Restarts after a start that ended by itself.
    pub restarts: u32,
    /// Ends in a row without a long healthy time between them.
    pub streak: u32,
    /// The stop grace that its current start was given; none before the first.
    pub grace: Option<Duration>,
    /// What runs.
    pub run: Run,
    /// Why the last start ended.
    pub ended: Option<Reason>,
    /// The end of its output at the last end, or when it became unhealthy.
    pub last_lines: Vec<String>,
    /// The logs of all its starts are on the coordinator's disk (told only of what has ended).
    pub logs_shipped: bool,
    /// Set for a task of a job.
    pub task: Option<Task>,
}

/// An instance's package on this node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Package {
    /// Not asked for.
    #[default]
    Unknown,
    /// Being fetched and unpacked.
    Preparing {
        /// Why it takes long, if it does (it is tried again and again by itself).
        trouble: Option<Reason>,
    },
    /// Unpacked.
    Ready,
    /// It did not work.
    Failed {
        /// Why, and what to do.
        reason: Reason,
        /// When to try again.
        retry: Monotonic,
    },
}

/// What runs of an instance.
#[derive(Debug, Clone, PartialEq)]
pub enum Run {
    /// Nothing.
    Down {
        /// Not to be started before.
        not_before: Option<Monotonic>,
        /// The last start ended by itself: the next is a restart.
        by_itself: bool,
    },
    /// It is being launched.
    Launching,
    /// Its processes run.
    Up(Up),
}

impl Default for Run {
    fn default() -> Self {
        Self::Down {
            not_before: None,
            by_itself: false,
        }
    }
}

/// A start that runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Up {
    /// Since when (for an adopted one: when it was adopted).
    pub since: Monotonic,
    /// Pid of its module.
    pub pid: Option<u32>,
    /// When its checks began to pass; none before the first success.
    pub passing: Option<Monotonic>,
    /// Failed checks in a row.
    pub failures: u32,
    /// What the last check said, if it failed.
    pub trouble: Option<Reason>,
    /// It cannot get well any more: it is to be started anew at once.
    pub hopeless: bool,
    /// Its stop was begun.
    pub stop: Option<Stop>,
}

/// A stop that was begun.
#[derive(Debug, Clone, PartialEq)]
pub struct Stop {
    /// Why.
    pub cause: Cause,
    /// When the whole tree is killed past its supervisor; none once that was done.
    pub kill: Option<Monotonic>,
}

/// Why a start is stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// It is not wanted any more.
    Unwanted,
    /// It does not work; it is to be started anew.
    Broken(Reason),
}

/// What a health check said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// It passed, and the socket is the instance's own.
    Passed,
    /// It failed.
    Failed(Reason),
    /// It failed, and will fail until it is started anew: there is nothing to wait for.
    Hopeless(Reason),
}

/// How a start ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// By itself, or its supervisor was lost.
    ByItself(Reason),
    /// It was told to stop, by this agent or by somebody on its behalf.
    Stopped(Reason),
    /// The node booted anew under it.
    Rebooted,
}

impl Local {
    /// The start that runs.
    pub fn up(&self) -> Option<&Up> {
        match &self.run {
            Run::Up(up) => Some(up),
            _ => None,
        }
    }

    /// A launch begins.
    pub fn launching(&mut self, start: u32) {
        if let Run::Down {
            by_itself: true, ..
        } = self.run
        {
            self.restarts += 1;
        }
        self.start = start;
        self.run = Run::Launching;
        self.logs_shipped = false;
    }

    /// Its processes run. `healthy`: an adopted one that was healthy when it was last seen.
    pub fn launched(&mut self, pid: Option<u32>, healthy: bool, now: Monotonic) {
        self.logs_shipped = false;
        self.run = Run::Up(Up {
            since: now,
            pid,
            // A task is not checked: that it runs is all there is to know.
            passing: (healthy || self.task.is_some()).then_some(now),
            failures: 0,
            trouble: None,
            hopeless: false,
            stop: None,
        });
    }

    /// It could not be launched; nothing of it runs.
    pub fn launch_failed(
        &mut self,
        id: &InstanceId,
        reason: Reason,
        now: Monotonic,
        settings: &Settings,
    ) {
        if self.task.is_some() {
            return self.conclude(reason);
        }
        self.down_after(id, reason, now, settings);
    }

    /// A check of the current start said something.
    pub fn checked(&mut self, check: Check, unhealthy_after: u32, now: Monotonic) {
        let Run::Up(up) = &mut self.run else { return };
        match check {
            Check::Passed => {
                if up.passing.is_none() || up.failures >= unhealthy_after {
                    up.passing = Some(now);
                }
                up.failures = 0;
                up.trouble = None;
            }
            Check::Failed(reason) => {
                up.failures = up.failures.saturating_add(1);
                up.trouble = Some(reason);
            }
            Check::Hopeless(reason) => {
                up.failures = up.failures.saturating_add(1);
                up.trouble = Some(reason);
                up.hopeless = true;
            }
        }
    }

    /// Its stop begins.
    pub fn stopping(&mut self, cause: Cause, kill: Monotonic) {
        if let Run::Up(up) = &mut self.run {
            up.stop = Some(Stop {
                cause,
                kill: Some(kill),
            });
        }
    }

    /// Its whole tree was killed past its supervisor.
    pub fn killed(&mut self) {
        if let Run::Up(Up {
            stop: Some(stop), ..
        }) = &mut self.run
        {
            stop.kill = None;
        }
    }

    /// The current start ended.
    pub fn end(&mut self, id: &InstanceId, end: End, now: Monotonic, settings: &Settings) {
        let cause = self
            .up()
            .and_then(|up| up.stop.as_ref())
            .map(|stop| stop.cause.clone());
        if self.task.is_some() {
            return self.task_ended(cause, end, now);
        }
        match (cause, end) {
            (_, End::Rebooted) => self.down(Reason::Rebooted),
            (Some(Cause::Broken(reason)), _) => self.down_after(id, reason, now, settings),
            // It ended of itself in the middle of a stop that was wanted: as good as stopped.
            (Some(Cause::Unwanted), End::ByItself(reason) | End::Stopped(reason)) => {
                self.down(reason)
            }
            (None, End::Stopped(reason)) => self.down(reason),
            (None, End::ByItself(reason)) => self.down_after(id, reason, now, settings),
        }
    }

    fn down(&mut self, reason: Reason) {
        self.streak = 0;
        self.ended = Some(reason);
        self.run = Run::default();
    }

    fn down_after(&mut self, id: &InstanceId, reason: Reason, now: Monotonic, settings: &Settings) {
        let healthy = self
            .up()
            .and_then(|up| up.passing)
            .map_or(Duration::ZERO, |p| now.since(p));
        self.streak = if healthy >= settings.restart_reset {
            1
        } else {
            self.streak.saturating_add(1)
        };
        match &reason {
            Reason::PortTaken { port, .. } if self.module_port == Some(*port) => {
                self.module_port = None;
            }
            Reason::PortTaken { .. } => self.port = None,
            _ => {}
        }
        let wait = settings.back_off(id, self.start, self.streak);
        self.ended = Some(reason);
        self.run = Run::Down {
            not_before: Some(now.after(wait)),
            by_itself: true,
        };
    }
}
