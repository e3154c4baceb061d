//! Outputs of tasks: taken in, verified and synced before they are answered.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use berth_model::digest::BlobDigest;
use berth_model::id::InstanceId;
use berth_proto::v1::{OutputChunk, OutputReply};
use berth_store::BlobError;
use bytes::Bytes;
use tonic::{Response, Status, Streaming};

use super::status;
use crate::control::{AgentName, Command};
use crate::edge::Edge;

/// Takes one output. What was sent before of the same bytes is not written again.
pub(super) async fn take(
    edge: &Arc<Edge>,
    agent: AgentName,
    mut chunks: Streaming<OutputChunk>,
) -> Result<Response<OutputReply>, Status> {
    let first = next(edge, &mut chunks)
        .await?
        .ok_or_else(|| Status::invalid_argument("an output begins with its task and blob"))?;
    let task: InstanceId = first
        .task
        .parse()
        .map_err(|error| Status::invalid_argument(format!("field task: {error}")))?;
    let blob: BlobDigest = first
        .blob
        .parse()
        .map_err(|error| Status::invalid_argument(format!("field blob: {error}")))?;
    // From then on the blob is kept, so that it is there when the task says that it is done.
    edge.control
        .ask(|reply| Command::AnnounceOutput(agent, task, blob, reply))
        .await
        .map_err(|problem| status(&problem))?;
    let there = edge.blobs.size(blob.as_bytes()).await;
    if let Some(bytes) = there.map_err(|error| failed(&error))? {
        return Ok(Response::new(OutputReply { bytes }));
    }
    let bytes = write(edge, &blob, first.data, &mut chunks).await?;
    let finished = edge.blobs.finish(blob.as_bytes(), bytes).await;
    finished.map_err(|error| failed(&error))?;
    Ok(Response::new(OutputReply { bytes }))
}

/// Writes the bytes, behind those that an earlier attempt has left; tells how many there are in all.
async fn write(
    edge: &Arc<Edge>,
    blob: &BlobDigest,
    first: Bytes,
    chunks: &mut Streaming<OutputChunk>,
) -> Result<u64, Status> {
    let failed = |error| failed(&error);
    let stands = edge.blobs.offset(blob.as_bytes()).await.map_err(failed)?;
    let mut upload = edge
        .blobs
        .upload(blob.as_bytes(), stands)
        .await
        .map_err(failed)?;
    let (mut bytes, mut data) = (0_u64, first);
    loop {
        let before = bytes;
        bytes += data.len() as u64;
        if bytes > edge.settings.max_blob {
            // It will not get smaller by being sent again.
            return Err(Status::failed_precondition(format!(
                "the output is larger than the coordinator takes ({} bytes); raise max_blob in \
                 coordinator.toml, or let the task write less",
                edge.settings.max_blob
            )));
        }
        let skip = usize::try_from(stands.saturating_sub(before)).unwrap_or(usize::MAX);
        if let Some(rest) = data.get(skip..) {
            upload.write(rest).await.map_err(failed)?;
            let uploaded = &edge.figures.uploaded;
            uploaded.fetch_add(rest.len() as u64, Ordering::Relaxed);
        }
        match next(edge, chunks).await? {
            Some(chunk) => data = chunk.data,
            None => break,
        }
    }
    upload.sync().await.map_err(failed)?;
    Ok(bytes)
}

async fn next(
    edge: &Edge,
    chunks: &mut Streaming<OutputChunk>,
) -> Result<Option<OutputChunk>, Status> {
    tokio::select! {
        next = tokio::time::timeout(edge.settings.upload_idle, chunks.message()) => match next {
            Ok(next) => next,
            Err(_) => Err(Status::deadline_exceeded(
                "nothing more of the output came for too long; send it again",
            )),
        },
        () = edge.shutdown.cancelled() => {
            Err(Status::unavailable("the coordinator is shutting down; send it again"))
        }
    }
}

fn failed(error: &BlobError) -> Status {
    let text = crate::chain(error);
    match error {
        BlobError::WrongContent { .. } => Status::data_loss(text),
        BlobError::DiskFull { .. }
        | BlobError::Superseded
        | BlobError::WrongOffset { .. }
        | BlobError::Incomplete { .. } => Status::unavailable(text),
        BlobError::NotFound { .. } | BlobError::Io { .. } => Status::internal(text),
    }
}
