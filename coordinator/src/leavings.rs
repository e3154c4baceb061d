//! What deleted jobs left: their logs, and the blobs that nothing else needs.

use std::sync::Arc;
use std::time::Duration;

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
