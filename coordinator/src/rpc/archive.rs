//! Archives for nodes, from any offset on.

use std::io::SeekFrom;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use berth_model::digest::BlobDigest;
use berth_proto::v1::{BlobChunk, FetchBlobRequest};
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;
use tonic::{Response, Status};

use super::{Streamed, status};
use crate::control::Command;
use crate::edge::Edge;

/// Bytes per message.
const CHUNK: usize = 256 * 1024;

pub(super) async fn fetch(
    edge: &Arc<Edge>,
    request: FetchBlobRequest,
) -> Result<Response<Streamed<BlobChunk>>, Status> {
    let digest: BlobDigest = request
        .blob
        .parse()
        .map_err(|error| Status::invalid_argument(format!("field blob: {error}")))?;
    let size = edge
        .control
        .ask(|reply| Command::BlobWanted(digest, reply))
        .await
        .map_err(|problem| status(&problem))?;
    if request.offset > size {
        return Err(Status::out_of_range(format!(
            "{digest} has {size} bytes; there is nothing at {}",
            request.offset
        )));
    }
    let mut file = edge
        .blobs
        .open_read(digest.as_bytes())
        .await
        .map_err(|error| {
            tracing::error!(error = crate::chain(&error), %digest, "a registered model's archive cannot be read");
            Status::not_found(format!("{error}; push the package again"))
        })?;
    file.seek(SeekFrom::Start(request.offset))
        .await
        .map_err(|error| Status::internal(error.to_string()))?;
    let figures = Arc::clone(edge);
    let length = match request.length {
        0 => u64::MAX,
        length => length,
    };
    let chunks = ReaderStream::with_capacity(file.take(length), CHUNK).map(move |chunk| {
        let data = chunk.map_err(|error| Status::internal(error.to_string()))?;
        let downloaded = &figures.figures.downloaded;
        downloaded.fetch_add(data.len() as u64, Ordering::Relaxed);
        Ok(BlobChunk { data })
    });
    let stream: Streamed<BlobChunk> =
        Box::pin(chunks.take_until(edge.shutdown.clone().cancelled_owned()));
    Ok(Response::new(stream))
}
