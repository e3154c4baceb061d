//! Containers that nobody wants any more: of starts that have ended, were called off, or whose folders are gone.
//!
//! Only containers with the label of this agent's data folder are ever looked at.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_shim::spec::SPEC_FILE;
use berth_shim::state::{Phase, State};
use bollard::models::{ContainerSummary, ContainerSummaryStateEnum};
use bollard::query_parameters::ListContainersOptions;

use super::container::{LABEL_DATA, LABEL_DIR};
use super::daemon::{Daemon, PATIENCE};
use super::error::DaemonError;
use super::launch::removal;
use crate::runtime::Availability;

/// How often it is looked while Docker works.
const EVERY: Duration = Duration::from_secs(60);

/// Sweeps whenever Docker comes back, and now and then. Ends with the daemon's thread.
pub(super) fn begin(daemon: &Daemon, data: &Path) {
    let mut availability = daemon.availability();
    let weak = daemon.downgrade();
    let data = data.to_owned();
    daemon.spawn(async move {
        loop {
            if *availability.borrow_and_update() == Availability::Works {
                let Some(daemon) = weak.upgrade() else { return };
                if let Err(error) = sweep(&daemon, &data, false).await {
                    tracing::debug!(error = crate::chain(&error), "cannot sweep containers");
                }
            }
            tokio::select! {
                changed = availability.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    });
}

/// Removes what nobody wants. How many that were. `ended`: all that is to end has, even where Docker says otherwise yet.
pub(super) async fn sweep(daemon: &Daemon, data: &Path, ended: bool) -> Result<usize, DaemonError> {
    let ours = format!("{LABEL_DATA}={}", data.display());
    let options = ListContainersOptions {
        all: true,
        filters: Some(HashMap::from([("label".to_owned(), vec![ours])])),
        ..ListContainersOptions::default()
    };
    let found = daemon
        .call(PATIENCE, |docker| async move {
            docker.list_containers(Some(options)).await
        })
        .await?;
    let mut removed = 0;
    for one in found {
        let (Some(id), Some(dir)) = (one.id.clone(), folder(&one)) else {
            continue;
        };
        let runs = matches!(
            one.state,
            Some(ContainerSummaryStateEnum::RUNNING | ContainerSummaryStateEnum::PAUSED)
        );
        let looked =
            tokio::task::spawn_blocking(move || (is_unwanted(&dir, runs && !ended), dir)).await;
        let Ok((true, dir)) = looked else { continue };
        tracing::info!(
            ?dir,
            container = id,
            runs,
            "removing a container that nobody wants"
        );
        let gone = daemon.call(PATIENCE, |docker| async move {
            docker.remove_container(&id, Some(removal())).await
        });
        match gone.await {
            Ok(()) => removed += 1,
            Err(error) if error.is_missing() || error.is_conflict() => {}
            // One that cannot be removed must not save the others.
            Err(error) => tracing::warn!(error = crate::chain(&error), "cannot remove a container"),
        }
    }
    Ok(removed)
}

fn folder(one: &ContainerSummary) -> Option<PathBuf> {
    one.labels.as_ref()?.get(LABEL_DIR).map(PathBuf::from)
}

/// Whether the container of a start folder is of no use any more.
fn is_unwanted(dir: &Path, runs: bool) -> bool {
    match State::load(dir) {
        Ok(state) => state.phase == Phase::Ended && !runs,
        // Being started, or called off: without a spec its shim has nothing to run.
        Err(error) if error.is_missing() => !dir.join(SPEC_FILE).exists(),
        // A state that this version cannot read: left alone.
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_being_started_or_not_understood_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("start");
        assert!(is_unwanted(&dir, true), "its folder is gone");
        std::fs::create_dir(&dir).unwrap();
        assert!(is_unwanted(&dir, false), "it was called off");
        std::fs::write(dir.join(SPEC_FILE), "{}").unwrap();
        assert!(!is_unwanted(&dir, true), "it is being started");
        std::fs::write(dir.join(berth_shim::state::STATE_FILE), "{\"version\":99}").unwrap();
        assert!(!is_unwanted(&dir, false), "a newer agent's");
    }
}
