//! What deleted jobs left: their logs, and the blobs that nothing else needs. And blobs that nothing has needed for long: of
//! uploads that were never registered, and of tasks whose output another attempt brought.

use std::sync::Arc;
use std::time::Duration;

use berth_model::digest::BlobDigest;
use berth_model::id::ServiceName;

use crate::control::{Command, Leavings};
use crate::edge::Edge;

/// Looked at without news, should a removal have failed.
const AGAIN: Duration = Duration::from_secs(30);

/// Removes what deleted jobs left, as they get there; ends at shutdown.
pub(crate) async fn keep_removing(edge: Arc<Edge>) {
    let mut changes = edge.control.changes();
    while !edge.shutdown.is_cancelled() {
        changes.mark_unchanged();
        if let Err(error) = remove_all(&edge).await {
            tracing::warn!(
                error,
                "what a deleted job left cannot be removed; tried again"
            );
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(AGAIN) => {}
            () = edge.shutdown.cancelled() => return,
        }
    }
}

async fn remove_all(edge: &Edge) -> Result<(), String> {
    let all = ask(edge).await?;
    for first in all {
        // Nobody may begin to need a blob between this look and its removal.
        let _held = edge.inputs.write().await;
        let now = ask(edge).await?;
        let Some(leavings) = now.into_iter().find(|l| l.job == first.job) else {
            continue;
        };
        remove(edge, &leavings).await?;
        let job = leavings.job;
        edge.control
            .ask(|reply| Command::LeavingsRemoved(job, reply))
            .await
            .map_err(|problem| problem.detail)?;
    }
    Ok(())
}

async fn ask(edge: &Edge) -> Result<Vec<Leavings>, String> {
    let answer = edge.control.ask(Command::Leavings).await;
    answer.map_err(|problem| problem.detail)
}

async fn remove(edge: &Edge, leavings: &Leavings) -> Result<(), String> {
    let service = ServiceName::from(&leavings.job);
    let deleted = edge.logs.delete_service(&service).await;
    deleted.map_err(|error| crate::chain(&error))?;
    for blob in &leavings.blobs {
        let removed = edge.blobs.remove(blob.as_bytes()).await;
        removed.map_err(|error| crate::chain(&error))?;
    }
    Ok(())
}

impl Edge {
    /// Removes blobs that nothing needs and nobody has uploaded or asked for since `age`; how many.
    pub async fn remove_unused(&self, age: Duration) -> Result<usize, String> {
        let failed = |error: berth_store::BlobError| crate::chain(&error);
        let old = self.blobs.older(age).await.map_err(failed)?;
        if old.is_empty() {
            return Ok(0);
        }
        // Nobody may begin to need one between this look and its removal.
        let _held = self.inputs.write().await;
        let old = old.into_iter().map(BlobDigest::from_bytes).collect();
        let unused = self
            .control
            .ask(|reply| Command::UnusedBlobs(old, reply))
            .await
            .map_err(|problem| problem.detail)?;
        let mut removed = 0;
        for blob in unused {
            let gone = self.blobs.remove_older(blob.as_bytes(), age).await;
            removed += usize::from(gone.map_err(failed)?);
        }
        Ok(removed)
    }
}
