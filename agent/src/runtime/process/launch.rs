//! Launching a shim, and waiting for its first word.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use berth_model::node::RuntimeKind;
use berth_shim::spec::SPEC_FILE;
use berth_shim::state::{Phase, STATE_FILE, State};

use super::launcher::{self, Armed, Launcher, Upcoming};
use super::{io_error, leftovers};
use crate::runtime::{Handle, Launch, RuntimeError};

/// How long a shim may take until all its processes were started. Far more than it ever needs, for
/// machines that swap.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a shim's own words go.
pub(super) const ERRORS_FILE: &str = "shim.err";

/// Persists the spec and launches the shim. Returns when it has reported that its processes were started,
/// or have ended already.
pub(super) fn launch(
    launcher: &dyn Launcher,
    shim: &Path,
    launch: &Launch,
) -> Result<(Option<Child>, Handle), RuntimeError> {
    let mut launch = Launch {
        dir: folder(launch)?,
        ..launch.clone()
    };
    let armed = launcher.arm(&launch)?;
    launch.spec.sandbox.clone_from(&armed.sandbox);
    if let Some(record) = &armed.record {
        launcher::write(&launch.dir, record)?;
    }
    store(&launch)?;
    match bring_up(launcher, shim, &launch, &armed) {
        Ok((child, state)) => Ok((child, handle(&launch.dir, &state))),
        Err(error) => {
            // Whatever it was doing, a start that was not reported must not run.
            // First what knows all of it at once, and whatever fails, nobody takes the folder for a start any more.
            let spec = &launch.spec;
            let cleared = launcher::clear(&launch.dir);
            let killed = leftovers::kill_marked(&spec.instance, spec.start, &launch.dir);
            call_off(&launch.dir);
            killed.map_err(io_error("kill what an unreported start left"))?;
            cleared?;
            Err(error)
        }
    }
}

fn bring_up(
    launcher: &dyn Launcher,
    shim: &Path,
    launch: &Launch,
    armed: &Armed,
) -> Result<(Option<Child>, State), RuntimeError> {
    let mut upcoming = launcher.launch(shim, launch, armed)?;
    match wait_for_report(upcoming.as_mut(), &launch.dir) {
        Ok(state) => Ok((upcoming.child(), state)),
        Err(error) => {
            upcoming.abandon();
            Err(error)
        }
    }
}

/// The handle of a start from its state.
pub(super) fn handle(dir: &Path, state: &State) -> Handle {
    Handle {
        runtime: RuntimeKind::Process,
        dir: dir.to_owned(),
        instance: state.instance.clone(),
        start: state.start,
        boot_id: state.boot_id.clone(),
        supervisor: state.shim,
    }
}

/// Makes the folder with the spec in it, and tells its canonical path.
#[cfg_attr(not(feature = "docker"), allow(dead_code))]
pub(in crate::runtime) fn prepare(launch: &Launch) -> Result<PathBuf, RuntimeError> {
    let launch = Launch {
        dir: folder(launch)?,
        ..launch.clone()
    };
    store(&launch)?;
    Ok(launch.dir)
}

fn store(launch: &Launch) -> Result<(), RuntimeError> {
    let failed = |source| RuntimeError::State {
        dir: launch.dir.clone(),
        source,
    };
    launch.spec.store(&launch.dir).map_err(failed)
}

/// Makes the folder, and tells its canonical path.
fn folder(launch: &Launch) -> Result<PathBuf, RuntimeError> {
    let refused = |why: &str| RuntimeError::Launch {
        dir: launch.dir.clone(),
        why: why.into(),
    };
    if !launch.dir.is_absolute() {
        return Err(refused("the path is not absolute"));
    }
    launch.spec.check().map_err(|why| refused(&why))?;
    // The spec holds the instance's environment, and its user may come as far as beside this folder.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&launch.dir)
        .map_err(io_error(format!("make {}", launch.dir.display())))?;
    let dir = launch
        .dir
        .canonicalize()
        .map_err(io_error(format!("find {}", launch.dir.display())))?;
    if dir.join(SPEC_FILE).exists() || dir.join(STATE_FILE).exists() {
        return Err(refused("it holds a start already"));
    }
    Ok(dir)
}

/// Makes sure that nobody takes the folder for a start.
pub(in crate::runtime) fn call_off(dir: &Path) {
    // If it stays, `adopt` calls it off; the error that is being returned matters more.
    let _ = fs::rename(dir.join(SPEC_FILE), dir.join("spec.cancelled"));
}

fn wait_for_report(upcoming: &mut dyn Upcoming, dir: &Path) -> Result<State, RuntimeError> {
    let failed = |why: String| RuntimeError::Supervisor {
        dir: dir.to_owned(),
        why,
    };
    let begin = Instant::now();
    let mut pause = Duration::from_micros(250);
    loop {
        let ended = upcoming.ended()?;
        match State::load(dir) {
            Ok(state) if state.phase != Phase::Starting => return Ok(state),
            Ok(_) => {}
            Err(error) if error.is_missing() => {}
            Err(source) => {
                return Err(RuntimeError::State {
                    dir: dir.to_owned(),
                    source,
                });
            }
        }
        // It was looked whether it has ended first: what it wrote last has been seen.
        if let Some(how) = ended {
            let said = fs::read_to_string(dir.join(ERRORS_FILE)).unwrap_or_default();
            return Err(failed(format!("{} ({how})", said.trim())));
        }
        if begin.elapsed() > PATIENCE {
            return Err(failed(format!("no report within {} s", PATIENCE.as_secs())));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}
