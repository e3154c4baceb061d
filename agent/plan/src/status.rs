//! What is reported of an instance.

use std::net::SocketAddr;

use berth_model::digest::PackageDigest;
use berth_model::instance::{InstanceSpec, Phase, Reason};
use berth_model::job::TaskOutput;
use berth_model::manifest::Protocol;
use berth_model::node::RuntimeKind;
use berth_model::time::Monotonic;

use crate::local::{Local, Package, Run, Up};
use crate::settings::Settings;
use crate::task::{Input, Stage, Task, UNBEGUN};

/// What is reported of an instance: an `InstanceStatus` without its identity and wall-clock time.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Status {
    /// Where it is in its life.
    pub phase: Phase,
    /// Number of its current or last start.
    pub start: u32,
    /// Restarts after a start that ended by itself.
    pub restarts: u32,
    /// Where gateways dial it.
    pub address: Option<SocketAddr>,
    /// Why it is not healthy, or why the last start ended.
    pub reason: Option<Reason>,
    /// The end of its output, when it ended or does not get healthy.
    pub last_lines: Vec<String>,
    /// Pid of its module.
    pub pid: Option<u32>,
    /// The package it runs.
    pub digest: Option<PackageDigest>,
    /// What a task that did all of its work left on the coordinator's disk.
    pub output: Option<TaskOutput>,
    /// UUIDs of the GPUs that are its own.
    pub gpus: Vec<String>,
}

/// What holds an instance up that is wanted and not running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold<'a> {
    /// Nothing.
    None,
    /// Another instance has the exclusive node.
    Exclusive(&'a str),
    /// This agent cannot run it.
    Refused(&'a str),
}

/// Why this agent cannot run an instance at all, if so.
pub fn refusal(spec: &InstanceSpec) -> Option<String> {
    let module = &spec.manifest.module;
    let driven = spec
        .manifest
        .job
        .as_ref()
        .is_none_or(|job| job.command.is_empty());
    if spec.task.is_some() && driven && module.protocol == Protocol::H2c {
        return Some(
            "Berth's batch driver speaks HTTP/1.1, and the module h2c: give [job] a command of its own"
                .to_owned(),
        );
    }
    if spec.runtime == RuntimeKind::Docker {
        // What a container needs is in its image; whether Docker is here is found out at each start.
        return None;
    }
    if spec.runtime != RuntimeKind::Process {
        return Some(format!(
            "this agent has no {} runtime: deploy with --runtime process",
            spec.runtime
        ));
    }
    None
}

/// Whether it has ended, or cannot be started, where nothing is started a second time.
pub(crate) fn is_over(hold: Hold<'_>, local: &Local, settings: &Settings) -> bool {
    let failed = local.start > 0
        || matches!(hold, Hold::Refused(_))
        || matches!(local.package, Package::Failed { .. });
    settings.once && matches!(local.run, Run::Down { .. }) && failed
}

/// What to report of an instance that is wanted, or not, and held up, or not.
pub(crate) fn status(
    spec: Option<&InstanceSpec>,
    wanted: bool,
    hold: Hold<'_>,
    local: &Local,
    now: Monotonic,
    settings: &Settings,
) -> Status {
    let mut status = Status {
        start: local.start,
        restarts: local.restarts,
        digest: local.digest.or(spec.map(|spec| spec.digest)),
        reason: local.ended.clone(),
        last_lines: local.last_lines.clone(),
        output: local.output().cloned(),
        gpus: spec.map(|spec| spec.gpus.clone()).unwrap_or_default(),
        ..Status::default()
    };
    let told = spec.is_some_and(|spec| spec.task.is_some());
    match &local.run {
        Run::Up(up) => running(&mut status, up, spec, local, now, settings),
        Run::Launching => {
            status.phase = Phase::Starting;
            status.address = address(local, settings);
        }
        Run::Down { .. } if !wanted && local.uploads() => status.phase = Phase::Stopping,
        Run::Down { .. } if !wanted => {
            if settings.once && local.start == 0 {
                // Why it never was started.
                waiting(&mut status, hold, local);
            }
            status.phase = Phase::Stopped;
        }
        Run::Down { .. } if local.task.is_some() || told => {
            let task = local.task.as_ref().unwrap_or(&UNBEGUN);
            task_down(&mut status, task, hold, local);
        }
        Run::Down { not_before, .. } => {
            waiting(&mut status, hold, local);
            if status.phase == Phase::Starting && not_before.is_some_and(|at| at > now) {
                status.phase = Phase::Backoff;
            }
        }
    }
    status
}

fn address(local: &Local, settings: &Settings) -> Option<SocketAddr> {
    // A task is reached by nobody.
    local
        .port
        .filter(|_| local.task.is_none())
        .map(|port| SocketAddr::new(local.host.unwrap_or(settings.address), port))
}

fn running(
    status: &mut Status,
    up: &Up,
    spec: Option<&InstanceSpec>,
    local: &Local,
    now: Monotonic,
    settings: &Settings,
) {
    status.address = address(local, settings);
    status.pid = up.pid;
    let unhealthy_after = spec.map_or(u32::MAX, |spec| spec.manifest.health.unhealthy_after.max(1));
    if up.stop.is_some() {
        status.phase = Phase::Stopping;
        return;
    }
    let Some(passing) = up.passing else {
        status.phase = Phase::Starting;
        // While it starts, a refused connection is nothing to report: an end before it is.
        if let Some(trouble @ (Reason::WrongPort { .. } | Reason::PortTaken { .. })) = &up.trouble {
            status.reason = Some(trouble.clone());
        }
        return;
    };
    if up.failures >= unhealthy_after {
        status.phase = Phase::Unhealthy;
        status.reason.clone_from(&up.trouble);
        return;
    }
    status.phase = Phase::Healthy;
    status.last_lines.clear();
    // The reason of a restart stays to be seen until the instance has proved itself again.
    if now.since(passing) >= settings.restart_reset {
        status.reason = None;
    }
}

/// A task that does not run, and is wanted.
fn task_down(status: &mut Status, task: &Task, hold: Hold<'_>, local: &Local) {
    match &task.stage {
        Stage::Over { .. } => status.phase = Phase::Stopped,
        // Its processes are gone; its output is not yet where it belongs.
        Stage::Ended => (status.phase, status.reason) = (Phase::Stopping, None),
        Stage::Uploading { trouble } => {
            (status.phase, status.reason) = (Phase::Stopping, trouble.clone());
        }
        Stage::Open => {
            waiting(status, hold, local);
            match (hold, &task.input) {
                // The coordinator finds another place, or says why there is none.
                (Hold::Refused(_), _) => status.phase = Phase::Stopped,
                (Hold::None, Input::Fetching { trouble }) => {
                    status.phase = Phase::Preparing;
                    if trouble.is_some() {
                        status.reason.clone_from(trouble);
                    }
                }
                _ => {}
            }
        }
    }
}

fn waiting(status: &mut Status, hold: Hold<'_>, local: &Local) {
    let node = |error: String| Some(Reason::Node { error });
    status.phase = Phase::Assigned;
    match (hold, &local.package) {
        (Hold::Refused(why), _) => status.reason = node(why.to_owned()),
        (Hold::Exclusive(other), _) => {
            status.reason = node(format!(
                "this node runs one instance at a time, and {other} is not stopped yet"
            ));
        }
        (Hold::None, Package::Unknown) => {}
        (Hold::None, Package::Preparing { trouble }) => {
            status.phase = Phase::Preparing;
            if trouble.is_some() {
                status.reason.clone_from(trouble);
            }
        }
        (Hold::None, Package::Failed { reason, .. }) => {
            status.phase = Phase::Preparing;
            status.reason = Some(reason.clone());
        }
        // It is started in this very step, unless its back-off is not over.
        (Hold::None, Package::Ready) => status.phase = Phase::Starting,
    }
}
