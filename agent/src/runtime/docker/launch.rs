//! Starting a container, and waiting for its shim's first word.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_model::node::RuntimeKind;
use berth_shim::identity;
use berth_shim::state::{Phase, ProcessIdentity, State};
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, RemoveContainerOptions, StartContainerOptions,
};

use super::daemon::{Daemon, PATIENCE};
use super::error::{DaemonError, failed};
use super::{DockerRuntime, container, host};
use crate::runtime::process::{call_off, io_error, prepare};
use crate::runtime::{Container, Handle, Launch, RuntimeError, marker};

/// How long a container may take from its start until its shim has reported.
const REPORT: Duration = Duration::from_secs(20);

/// Between looks at whether a container that does not report still runs.
const LOOK: Duration = Duration::from_millis(250);

impl DockerRuntime {
    /// See [`crate::runtime::Runtime::start`].
    pub(super) fn launch(&self, launch: &Launch) -> Result<Handle, RuntimeError> {
        let refused = |why: &str| RuntimeError::Launch {
            dir: launch.dir.clone(),
            why: why.into(),
        };
        launch.spec.check().map_err(|why| refused(&why))?;
        let container = launch
            .container
            .as_ref()
            .ok_or_else(|| refused("nothing was said about its container"))?;
        let mut launch = launch.clone();
        for (key, value) in self.image_env(&container.image)? {
            for process in &mut launch.spec.processes {
                process.env.entry(key.clone()).or_insert(value.clone());
            }
        }
        let dir = prepare(&launch)?;
        let result = self.in_folder(&launch, container, &dir);
        if result.is_err() {
            // Without a spec no shim starts anything, however late its container comes.
            call_off(&dir);
            self.remove_later(&container::name(
                &launch.spec.instance,
                launch.spec.start,
                &dir,
            ));
        }
        result
    }

    fn in_folder(
        &self,
        launch: &Launch,
        container: &Container,
        dir: &Path,
    ) -> Result<Handle, RuntimeError> {
        let failed_here = |what: &str| io_error(format!("{what} {}", dir.display()));
        marker::write(dir, RuntimeKind::Docker).map_err(failed_here("mark"))?;
        new_file(&dir.join(host::SUPERVISOR_FILE)).map_err(failed_here("make a file in"))?;
        self.give_away(dir, container)?;
        let name = container::name(&launch.spec.instance, launch.spec.start, dir);
        let body = container::body(&self.common, launch, container, dir);
        self.create(&name, body)?;
        let begin = name.clone();
        self.daemon
            .wait_for(PATIENCE, move |docker| async move {
                docker
                    .start_container(&begin, None::<StartContainerOptions>)
                    .await
            })
            .map_err(failed(format!("start the container {name}")))?;
        let state = self.wait_for_report(&name, dir)?;
        let supervisor = self.supervisor(&name, &state);
        // Without it the process is looked for.
        if let Err(error) = host::remember(dir, &state, supervisor) {
            tracing::warn!(%error, ?dir, "cannot write down who the shim is");
        }
        Ok(handle(dir, &state, supervisor))
    }

    /// Gives what the module may write to the user that it runs as.
    fn give_away(&self, dir: &Path, container: &Container) -> Result<(), RuntimeError> {
        let user = self.common.user;
        let own = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        if user == own {
            return Ok(());
        }
        let failed =
            |path: &Path| io_error(format!("give {} to {}:{}", path.display(), user.0, user.1));
        for path in &container.writable {
            chown_all(path, user).map_err(failed(path))?;
        }
        for path in [dir.to_owned(), dir.join(berth_shim::spec::SPEC_FILE)] {
            std::os::unix::fs::lchown(&path, Some(user.0), Some(user.1)).map_err(failed(&path))?;
        }
        Ok(())
    }

    /// Makes the container, or takes the one that an earlier try made.
    fn create(
        &self,
        name: &str,
        body: bollard::models::ContainerCreateBody,
    ) -> Result<(), RuntimeError> {
        let image = body.image.clone().unwrap_or_default();
        let create = |body: bollard::models::ContainerCreateBody| {
            let options = CreateContainerOptions {
                name: Some(name.to_owned()),
                ..CreateContainerOptions::default()
            };
            self.daemon.wait_for(PATIENCE, move |docker| async move {
                docker.create_container(Some(options), body).await
            })
        };
        let mut made = create(body.clone());
        if made.as_ref().is_err_and(DaemonError::is_conflict) {
            // Of this very folder, which holds no start: left by an agent that died, and without a spec to run.
            remove(&self.daemon, name).map_err(failed(format!("remove an older {name}")))?;
            made = create(body);
        }
        match made {
            Ok(_) => Ok(()),
            Err(error) if error.is_missing() => Err(RuntimeError::ImageGone { image }),
            Err(error) => Err(failed(format!("make the container {name}"))(error)),
        }
    }

    /// The environment that an image brings.
    fn image_env(&self, image: &str) -> Result<Vec<(String, String)>, RuntimeError> {
        let asked = image.to_owned();
        let inspected = self.daemon.wait_for(PATIENCE, move |docker| async move {
            docker.inspect_image(&asked).await
        });
        let inspected = match inspected {
            Ok(inspected) => inspected,
            Err(error) if error.is_missing() => {
                return Err(RuntimeError::ImageGone {
                    image: image.to_owned(),
                });
            }
            Err(error) => return Err(failed(format!("look at the image {image}"))(error)),
        };
        let env = inspected.config.and_then(|config| config.env);
        let pairs = env.unwrap_or_default().into_iter();
        Ok(pairs
            .filter_map(|pair| {
                let (key, value) = pair.split_once('=')?;
                (!key.is_empty()).then(|| (key.to_owned(), value.to_owned()))
            })
            .collect())
    }

    fn wait_for_report(&self, name: &str, dir: &Path) -> Result<State, RuntimeError> {
        let failed_up = |why: String| RuntimeError::Supervisor {
            dir: dir.to_owned(),
            why,
        };
        let (begin, mut looked) = (Instant::now(), Instant::now());
        let mut pause = Duration::from_millis(1);
        loop {
            let over = looked.elapsed() >= LOOK;
            // First whether it has ended: then what it wrote last has been seen.
            let ended = over.then(|| self.inspect(name)).transpose();
            if over {
                looked = Instant::now();
            }
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
            if let Ok(Some(seen)) = ended
                && let Some(why) = not_running(&seen)
            {
                return Err(failed_up(why));
            }
            if begin.elapsed() > REPORT {
                return Err(failed_up(format!(
                    "no report within {} s",
                    REPORT.as_secs()
                )));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    /// Who the shim is on this machine; nobody, if it has ended by now.
    fn supervisor(&self, name: &str, state: &State) -> ProcessIdentity {
        let nobody = ProcessIdentity {
            pid: 0,
            start_ticks: state.shim.start_ticks,
        };
        if state.phase == Phase::Ended {
            return nobody;
        }
        let pid = self
            .inspect(name)
            .ok()
            .and_then(|seen| seen.state?.pid)
            .and_then(|pid| u32::try_from(pid).ok())
            .filter(|pid| *pid > 0);
        let found = pid.and_then(|pid| identity::identify(pid).ok().flatten());
        // Another start time: it is not it any more.
        found
            .filter(|found| found.start_ticks == state.shim.start_ticks)
            .unwrap_or(nobody)
    }

    /// What Docker knows of a container.
    pub(super) fn inspect(&self, name: &str) -> Result<ContainerInspectResponse, DaemonError> {
        let name = name.to_owned();
        self.daemon
            .wait_for(Duration::from_secs(3), move |docker| async move {
                docker
                    .inspect_container(&name, None::<InspectContainerOptions>)
                    .await
            })
    }
}

/// Why a container that should run does not.
fn not_running(seen: &ContainerInspectResponse) -> Option<String> {
    let state = seen.state.as_ref()?;
    if state.running == Some(true) || state.exit_code.is_none() {
        return None;
    }
    let created = state.status == Some(bollard::models::ContainerStateStatusEnum::CREATED);
    let error = state.error.clone().unwrap_or_default();
    if created && error.is_empty() {
        return None;
    }
    let code = state.exit_code.unwrap_or_default();
    Some(format!(
        "its container ended with code {code} {error}: is berth-shim static, and the data folder on a disk that Docker \
         can mount?"
    ))
}

/// The handle of a start.
pub(super) fn handle(dir: &Path, state: &State, supervisor: ProcessIdentity) -> Handle {
    Handle {
        runtime: RuntimeKind::Docker,
        dir: dir.to_owned(),
        instance: state.instance.clone(),
        start: state.start,
        boot_id: state.boot_id.clone(),
        supervisor,
    }
}

/// Removes a container whatever its state; one that is not there is removed.
pub(super) fn remove(daemon: &Daemon, name: &str) -> Result<(), DaemonError> {
    let name = name.to_owned();
    let removed = daemon.wait_for(PATIENCE, move |docker| async move {
        docker.remove_container(&name, Some(removal())).await
    });
    match removed {
        Err(error) if error.is_missing() || error.is_conflict() => Ok(()),
        other => other,
    }
}

/// By force, and with its anonymous volumes.
pub(super) fn removal() -> RemoveContainerOptions {
    RemoveContainerOptions {
        force: true,
        v: true,
        ..RemoveContainerOptions::default()
    }
}

/// An empty file that was not there.
fn new_file(path: &PathBuf) -> std::io::Result<File> {
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)
}

/// Gives a folder and all below it away. Links are given away themselves, never followed.
fn chown_all(path: &Path, user: (u32, u32)) -> std::io::Result<()> {
    std::os::unix::fs::lchown(path, Some(user.0), Some(user.1))?;
    if !fs::symlink_metadata(path)?.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        chown_all(&entry?.path(), user)?;
    }
    Ok(())
}
