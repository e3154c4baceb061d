//! Finding out what became of a start, from its folder alone.

use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use berth_shim::DocumentError;
use berth_shim::identity;
use berth_shim::spec::{SPEC_FILE, Spec};
use berth_shim::state::{LOCK_FILE, Phase, State, Status};

use super::{io_error, launch, leftovers};
use crate::runtime::{Adopted, End, EndReason, EndState, Handle, ProcessEnd, RuntimeError};

/// How long a shim that is just coming up may take to write its first state.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a runtime knows the supervisors of its starts.
pub(in crate::runtime) trait Supervisors {
    /// The start of a state, if its supervisor runs.
    fn find(&self, dir: &Path, state: &State) -> std::io::Result<Option<Handle>>;

    /// Why a supervisor is gone that ended in this boot without a final state.
    fn lost(&self, _dir: &Path, _state: &State) -> EndReason {
        EndReason::SupervisorLost
    }

    /// Clears away what was around a start whose supervisor is gone.
    fn clear(&self, _dir: &Path) -> Result<(), RuntimeError> {
        Ok(())
    }

    /// Why a start ended that left its final state: `reason` as it stands there.
    fn ended(&self, _dir: &Path, reason: EndReason) -> EndReason {
        reason
    }
}

/// Supervisors that are processes like any other.
pub(super) struct Plain;

impl Supervisors for Plain {
    fn find(&self, dir: &Path, state: &State) -> std::io::Result<Option<Handle>> {
        let alive = identity::is_alive(state.shim, &state.boot_id)?;
        Ok(alive.then(|| launch::handle(dir, state)))
    }

    fn clear(&self, dir: &Path) -> Result<(), RuntimeError> {
        super::launcher::clear(dir)
    }
}

/// See [`crate::runtime::Runtime::adopt`].
pub(in crate::runtime) fn adopt(by: &dyn Supervisors, dir: &Path) -> Result<Adopted, RuntimeError> {
    let begin = Instant::now();
    loop {
        match State::load(dir) {
            Ok(state) => return from_state(by, dir, &state),
            Err(error) if error.is_missing() => {}
            Err(error @ DocumentError::Json { .. }) => return from_wreck(by, dir, error),
            Err(source) => {
                return Err(RuntimeError::State {
                    dir: dir.to_owned(),
                    source,
                });
            }
        }
        if !dir.join(SPEC_FILE).exists() || call_off(dir)? {
            by.clear(dir)?;
            return Ok(Adopted::Nothing);
        }
        if begin.elapsed() > PATIENCE {
            let why = "it holds the folder and writes no state".into();
            return Err(RuntimeError::Supervisor {
                dir: dir.to_owned(),
                why,
            });
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn from_state(by: &dyn Supervisors, dir: &Path, state: &State) -> Result<Adopted, RuntimeError> {
    if state.phase == Phase::Ended {
        return Ok(ended(by, dir, state));
    }
    let failed = || io_error(format!("look for the processes of {}", state.instance));
    if let Some(handle) = by.find(dir, state).map_err(failed())? {
        return Ok(Adopted::Running(handle));
    }
    lost(by, dir)
}

/// A start that left its final state. That something around it cannot be cleared away changes nothing of that.
fn ended(by: &dyn Supervisors, dir: &Path, state: &State) -> Adopted {
    if let Err(error) = by.clear(dir) {
        let error = crate::chain(&error);
        tracing::warn!(
            instance = state.instance,
            error,
            "cannot clear away what was around it"
        );
    }
    Adopted::Ended(end_state(by, dir, state))
}

/// What became of a start whose shim is gone: it ended in order, or it was lost and is cleared away now.
pub(in crate::runtime) fn lost(by: &dyn Supervisors, dir: &Path) -> Result<Adopted, RuntimeError> {
    // Anew: it may have been ending when it was looked at before.
    let state = match State::load(dir) {
        Ok(state) => state,
        Err(source) => {
            return Err(RuntimeError::State {
                dir: dir.to_owned(),
                source,
            });
        }
    };
    if state.phase == Phase::Ended {
        return Ok(ended(by, dir, &state));
    }
    let failed = || io_error(format!("clear away what is left of {}", state.instance));
    let same_boot = identity::boot_id().map_err(failed())? == state.boot_id;
    let mut reason = EndReason::NodeRestarted;
    if same_boot {
        // First what knows all of it at once.
        let cleared = by.clear(dir);
        leftovers::kill_marked(&state.instance, state.start, dir).map_err(failed())?;
        cleared?;
        reason = by.lost(dir, &state);
    }
    Ok(Adopted::Lost(lost_state(&state, reason)))
}

/// A state that is no JSON, as a power cut may leave it. Nobody writes it any more if nobody holds the lock.
fn from_wreck(
    by: &dyn Supervisors,
    dir: &Path,
    source: DocumentError,
) -> Result<Adopted, RuntimeError> {
    if lock(dir)?.is_none() {
        return Err(RuntimeError::State {
            dir: dir.to_owned(),
            source,
        });
    }
    // First what knows all of it at once.
    let cleared = by.clear(dir);
    if let Ok(spec) = Spec::load(dir) {
        leftovers::kill_marked(&spec.instance, spec.start, dir)
            .map_err(io_error("clear away what is left of a start"))?;
    }
    cleared?;
    Ok(Adopted::Lost(EndState {
        reason: EndReason::SupervisorLost,
        stop_requested: false,
        processes: Vec::new(),
        started_at_ms: 0,
        ended_at_ms: None,
        stderr_tail: None,
    }))
}

/// Calls off a launch of which there is no state yet. False if a shim is at it, or just was.
fn call_off(dir: &Path) -> Result<bool, RuntimeError> {
    // A shim takes the lock before it reads the spec, and keeps it. So with the lock held and still no
    // state, no shim has read the spec; and without a spec none ever will.
    let Some(_lock) = lock(dir)? else {
        return Ok(false);
    };
    if dir.join(berth_shim::state::STATE_FILE).exists() {
        return Ok(false);
    }
    fs::rename(dir.join(SPEC_FILE), dir.join("spec.cancelled")).map_err(io_error(format!(
        "call off the launch in {}",
        dir.display()
    )))?;
    Ok(true)
}

/// The lock that a shim holds as long as it lives; none if one does.
fn lock(dir: &Path) -> Result<Option<File>, RuntimeError> {
    let failed = || io_error(format!("lock {}", dir.display()));
    let file = File::options()
        .create(true)
        .append(true)
        .open(dir.join(LOCK_FILE))
        .map_err(failed())?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(failed()(error)),
    }
}

fn ends(state: &State) -> Vec<ProcessEnd> {
    let end = |status: &Status| match status {
        Status::NotStarted => End::NotStarted,
        Status::FailedToStart { error } => End::FailedToStart {
            error: error.clone(),
        },
        Status::Exited { code } => End::Exited { code: *code },
        Status::Signaled { signal, core } => End::Signaled {
            signal: *signal,
            core: *core,
        },
        Status::Running => End::Unknown,
    };
    let of = |process: &berth_shim::state::ProcessState| ProcessEnd {
        name: process.name.clone(),
        end: end(&process.status),
    };
    state.processes.iter().map(of).collect()
}

fn end_state(by: &dyn Supervisors, dir: &Path, state: &State) -> EndState {
    let processes = ends(state);
    let first = processes
        .iter()
        .find(|process| Some(&process.name) == state.ended_by.as_ref());
    let starved = |process: &&ProcessEnd| {
        let mut states = state.processes.iter();
        states.any(|state| state.name == process.name && state.oom_killed)
    };
    let memory = state.memory.unwrap_or_default();
    let reason = match first {
        Some(process) if starved(&process) => EndReason::OutOfMemory {
            process: process.name.clone(),
            limit: memory.limit,
            peak: memory.peak,
        },
        Some(process) => EndReason::Process(process.clone()),
        None if state.killed_after_grace => EndReason::KilledAfterGrace,
        None => EndReason::Stopped,
    };
    EndState {
        reason: by.ended(dir, reason),
        stop_requested: state.stop_requested,
        processes,
        started_at_ms: state.started_at_ms,
        ended_at_ms: state.ended_at_ms,
        stderr_tail: state.stderr_tail.clone(),
    }
}

fn lost_state(state: &State, reason: EndReason) -> EndState {
    EndState {
        reason,
        stop_requested: state.stop_requested,
        processes: ends(state),
        started_at_ms: state.started_at_ms,
        ended_at_ms: None,
        stderr_tail: None,
    }
}
