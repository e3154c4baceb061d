//! Launching a shim, and waiting for its first word.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use berth_model::node::RuntimeKind;
use berth_shim::spec::SPEC_FILE;
use berth_shim::state::{Phase, STATE_FILE, State};

use super::{io_error, leftovers};
use crate::runtime::{Handle, Launch, RuntimeError};

/// How long a shim may take until all its processes were started. Far more than it ever needs, for
/// machines that swap.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a shim's own words go.
const ERRORS_FILE: &str = "shim.err";

/// Persists the spec and launches the shim. Returns when it has reported that its processes were started,
/// or have ended already.
pub(super) fn launch(shim: &Path, launch: &Launch) -> Result<(Child, Handle), RuntimeError> {
    let dir = prepare(launch)?;
    let launch = &Launch {
        dir,
        ..launch.clone()
    };
    let mut child = match run(shim, &launch.dir) {
        Ok(child) => child,
        Err(error) => {
            call_off(&launch.dir);
            return Err(error);
        }
    };
    match wait_for_report(&mut child, &launch.dir) {
        Ok(state) => Ok((child, handle(&launch.dir, &state))),
        Err(error) => {
            // Whatever it was doing, a start that was not reported must not run.
            let _ = child.kill();
            let _ = child.wait();
            let spec = &launch.spec;
            leftovers::kill_marked(&spec.instance, spec.start, &launch.dir)
                .map_err(io_error("kill what an unreported start left"))?;
            call_off(&launch.dir);
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
pub(in crate::runtime) fn prepare(launch: &Launch) -> Result<std::path::PathBuf, RuntimeError> {
    let refused = |why: &str| RuntimeError::Launch {
        dir: launch.dir.clone(),
        why: why.into(),
    };
    if !launch.dir.is_absolute() {
        return Err(refused("the path is not absolute"));
    }
    launch.spec.check().map_err(|why| refused(&why))?;
    fs::create_dir_all(&launch.dir).map_err(io_error(format!("make {}", launch.dir.display())))?;
    let dir = launch
        .dir
        .canonicalize()
        .map_err(io_error(format!("find {}", launch.dir.display())))?;
    if dir.join(SPEC_FILE).exists() || dir.join(STATE_FILE).exists() {
        return Err(refused("it holds a start already"));
    }
    launch
        .spec
        .store(&dir)
        .map_err(|source| RuntimeError::State {
            dir: dir.clone(),
            source,
        })?;
    Ok(dir)
}

fn run(shim: &Path, dir: &Path) -> Result<Child, RuntimeError> {
    let errors = File::create(dir.join(ERRORS_FILE))
        .map_err(io_error(format!("make {ERRORS_FILE} in {}", dir.display())))?;
    let mut command = Command::new(shim);
    command.args(["run", "--dir"]).arg(dir);
    command.env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    // Not in a folder that somebody may want to remove.
    command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors);
    command
        .spawn()
        .map_err(io_error(format!("run the shim {}", shim.display())))
}

/// Makes sure that nobody takes the folder for a start.
pub(in crate::runtime) fn call_off(dir: &Path) {
    // If it stays, `adopt` calls it off; the error that is being returned matters more.
    let _ = fs::rename(dir.join(SPEC_FILE), dir.join("spec.cancelled"));
}

fn wait_for_report(child: &mut Child, dir: &Path) -> Result<State, RuntimeError> {
    let failed = |why: String| RuntimeError::Supervisor {
        dir: dir.to_owned(),
        why,
    };
    let begin = Instant::now();
    let mut pause = Duration::from_micros(250);
    loop {
        let ended = child.try_wait().map_err(io_error("wait for the shim"))?;
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
        if let Some(status) = ended {
            let said = fs::read_to_string(dir.join(ERRORS_FILE)).unwrap_or_default();
            return Err(failed(format!("{} ({status})", said.trim())));
        }
        if begin.elapsed() > PATIENCE {
            return Err(failed(format!("no report within {} s", PATIENCE.as_secs())));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}
