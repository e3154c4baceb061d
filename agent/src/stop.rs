//! Stopping every instance of a node in order while its agent does not run.

use std::sync::Arc;
use std::time::Duration;

use berth_shim::spec::Spec;

use crate::data::DataDir;
use crate::run::RunError;
use crate::runtime::{Adopted, Handle, Runtimes};

/// Time beyond the stop grace after which a tree is killed past its supervisor.
const MARGIN: Duration = Duration::from_secs(5);

/// What was found and done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stopped {
    /// Instances that were stopped.
    pub stopped: u32,
    /// Of these, those that had to be killed past their supervisor.
    pub killed: u32,
    /// Starts of which it cannot be told whether they run.
    pub unknown: u32,
}

/// Stops all instances at once and waits for them. An agent that is run again afterwards starts them again.
/// Errors: an agent uses the folder.
pub async fn stop_instances(data: &DataDir, runtimes: Arc<Runtimes>) -> Result<Stopped, RunError> {
    let _lock = data.lock()?;
    let mut result = Stopped::default();
    let mut stopping = Vec::new();
    for id in data.instance_ids()? {
        for start in data.starts(&id)? {
            let (runtimes, dir) = (runtimes.clone(), data.start(&id, start));
            match tokio::task::spawn_blocking(move || runtimes.adopt(&dir)).await {
                Ok(Ok(Adopted::Running(handle))) => stopping.push(handle),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    tracing::error!(instance = %id, start, error = crate::chain(&error), "cannot tell whether it runs");
                    result.unknown += 1;
                }
                Err(error) => {
                    tracing::error!(instance = %id, start, %error, "cannot tell whether it runs");
                    result.unknown += 1;
                }
            }
        }
    }
    let waits = stopping
        .into_iter()
        .map(|handle| tokio::spawn(stop_one(runtimes.clone(), handle)));
    for wait in waits.collect::<Vec<_>>() {
        result.stopped += 1;
        if wait.await.unwrap_or(true) {
            result.killed += 1;
        }
    }
    let tidied = tokio::task::spawn_blocking(move || {
        for runtime in runtimes.iter() {
            runtime.tidy();
        }
    });
    if let Err(error) = tidied.await {
        tracing::warn!(%error, "tidying up broke off");
    }
    Ok(result)
}

/// Whether it had to be killed.
async fn stop_one(runtimes: Arc<Runtimes>, handle: Handle) -> bool {
    let grace = Spec::load(&handle.dir).map_or(10_000, |spec| spec.stop_grace_ms);
    if let Err(error) = runtimes.stop(&handle) {
        tracing::warn!(
            instance = handle.instance,
            error = crate::chain(&error),
            "cannot stop in order"
        );
    }
    let ended = runtimes.ended(&handle);
    if tokio::time::timeout(Duration::from_millis(grace) + MARGIN, ended)
        .await
        .is_ok()
    {
        return false;
    }
    let instance = handle.instance.clone();
    let killed = tokio::task::spawn_blocking(move || runtimes.kill(&handle)).await;
    if let Ok(Err(error)) = killed {
        tracing::error!(instance, error = crate::chain(&error), "cannot kill");
    }
    true
}
