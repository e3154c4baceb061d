//! Archives: upload with resume, download.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json as Answer;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use berth_model::api::BlobView;
use berth_model::digest::BlobDigest;
use berth_model::problem::Problem;
use berth_store::{BlobError, Upload};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio_util::io::ReaderStream;

use super::extract::Name;
use super::failure::Failure;
use crate::edge::Edge;

const OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const LENGTH: HeaderName = HeaderName::from_static("upload-length");
const COMPLETE: HeaderName = HeaderName::from_static("upload-complete");

/// Bytes per read of a download.
const READ: usize = 256 * 1024;

pub(super) async fn offset(
    State(edge): State<Arc<Edge>>,
    Name(digest): Name<BlobDigest>,
) -> Result<Response, Failure> {
    // Whoever asks means to use it: it stays for that.
    let size = edge
        .blobs
        .claim(digest.as_bytes())
        .await
        .map_err(|error| failed(&error))?;
    let (offset, complete) = match size {
        Some(size) => (size, true),
        None => (stands_at(&edge, &digest).await?, false),
    };
    Ok(progress(offset, complete, ()))
}

pub(super) async fn append(
    State(edge): State<Arc<Edge>>,
    Name(digest): Name<BlobDigest>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let (from, length) = (number(&headers, &OFFSET)?, number(&headers, &LENGTH)?);
    if length > edge.settings.max_blob {
        return Err(Failure::too_large(format!(
            "the archive has {length} bytes; the coordinator takes up to {}",
            edge.settings.max_blob
        )));
    }
    match edge.blobs.claim(digest.as_bytes()).await {
        Ok(Some(size)) => return Ok(view(digest, size, true)),
        Ok(None) => {}
        Err(error) => return Err(failed(&error)),
    }
    // In a task of its own: a client that goes away ends this handler, but not what it had sent.
    let taking = tokio::spawn(take(Arc::clone(&edge), digest, from, length, body));
    let taken = taking
        .await
        .map_err(|error| Problem::internal(format!("the upload failed: {error}")))?;
    let offset = match taken {
        Ok(offset) => offset,
        Err(Refusal::Store(BlobError::WrongOffset { offset, expected })) => {
            let problem = Problem::conflict(format!(
                "the upload stands at {expected}, not at {offset}; go on from there"
            ));
            return Ok(progress(expected, false, Failure(problem)));
        }
        Err(Refusal::Store(error)) => return Err(failed(&error)),
        Err(Refusal::Request(failure)) => return Err(failure),
    };
    if offset < length {
        return Ok(view(digest, offset, false));
    }
    edge.blobs
        .finish(digest.as_bytes(), length)
        .await
        .map_err(|error| failed(&error))?;
    Ok(view(digest, length, true))
}

enum Refusal {
    Store(BlobError),
    Request(Failure),
}

impl From<BlobError> for Refusal {
    fn from(error: BlobError) -> Self {
        Self::Store(error)
    }
}

/// Writes the body. What came of a body that broke off is kept, so that the client resumes there.
async fn take(
    edge: Arc<Edge>,
    digest: BlobDigest,
    from: u64,
    length: u64,
    body: Body,
) -> Result<u64, Refusal> {
    let mut upload = edge.blobs.upload(digest.as_bytes(), from).await?;
    let mut chunks = body.into_data_stream();
    let mut left = length.checked_sub(from).ok_or_else(|| {
        Refusal::Request(Failure::bad_request(format!(
            "upload-offset {from} lies behind upload-length {length}"
        )))
    })?;
    let broken = loop {
        match tokio::time::timeout(edge.settings.upload_idle, chunks.next()).await {
            Err(_) => break Some(Failure::too_slow()),
            Ok(None) => break None,
            Ok(Some(Err(error))) => {
                break Some(Failure::bad_request(format!(
                    "the body ended early: {error}"
                )));
            }
            Ok(Some(Ok(chunk))) => {
                let Some(rest) = left.checked_sub(chunk.len() as u64) else {
                    break Some(Failure::bad_request(
                        "the body is longer than upload-length says",
                    ));
                };
                left = rest;
                write(&edge, &mut upload, &chunk).await?;
            }
        }
    };
    let offset = upload.sync().await?;
    broken.map_or(Ok(offset), |failure| Err(Refusal::Request(failure)))
}

async fn write(edge: &Edge, upload: &mut Upload, chunk: &Bytes) -> Result<(), BlobError> {
    upload.write(chunk).await?;
    edge.figures
        .uploaded
        .fetch_add(chunk.len() as u64, Ordering::Relaxed);
    Ok(())
}

pub(super) async fn download(
    State(edge): State<Arc<Edge>>,
    Name(digest): Name<BlobDigest>,
) -> Result<Response, Failure> {
    let (file, size) = open(&edge, &digest).await?;
    let figures = Arc::clone(&edge);
    let stream = ReaderStream::with_capacity(file, READ).inspect(move |chunk| {
        if let Ok(chunk) = chunk {
            let downloaded = &figures.figures.downloaded;
            downloaded.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
    });
    let headers = [
        (
            CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        ),
        (CONTENT_LENGTH, HeaderValue::from(size)),
    ];
    Ok((headers, Body::from_stream(stream)).into_response())
}

/// Opens a complete blob; its size in bytes. 404 if it is not here, or not wholly.
pub(super) async fn open(
    edge: &Edge,
    digest: &BlobDigest,
) -> Result<(tokio::fs::File, u64), Failure> {
    let file = edge
        .blobs
        .open_read(digest.as_bytes())
        .await
        .map_err(|error| failed(&error))?;
    let size = file
        .metadata()
        .await
        .map_err(|error| Problem::internal(format!("{digest}: {error}")))?
        .len();
    Ok((file, size))
}

async fn stands_at(edge: &Edge, digest: &BlobDigest) -> Result<u64, Failure> {
    match edge.blobs.offset(digest.as_bytes()).await {
        Ok(offset) => Ok(offset),
        Err(BlobError::NotFound { .. }) => Ok(0),
        Err(error) => Err(failed(&error)),
    }
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Result<u64, Failure> {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .ok_or_else(|| Failure::bad_request(format!("the header {name} must be a number of bytes")))
}

fn view(digest: BlobDigest, offset: u64, complete: bool) -> Response {
    let view = BlobView {
        digest,
        offset,
        complete,
    };
    progress(offset, complete, Answer(view))
}

/// Upload-Complete is a boolean of RFC 9651, as in the IETF's draft on resumable uploads.
fn progress(offset: u64, complete: bool, rest: impl IntoResponse) -> Response {
    let mut response = rest.into_response();
    let headers = response.headers_mut();
    headers.insert(OFFSET, HeaderValue::from(offset));
    headers.insert(
        COMPLETE,
        HeaderValue::from_static(if complete { "?1" } else { "?0" }),
    );
    response
}

fn failed(error: &BlobError) -> Failure {
    let problem = match error {
        BlobError::NotFound { .. } => Problem::not_found(format!("{error}; upload it first")),
        BlobError::WrongContent { .. } => Problem::invalid(error.to_string()),
        BlobError::WrongOffset { .. } | BlobError::Superseded | BlobError::Incomplete { .. } => {
            Problem::conflict(error.to_string())
        }
        BlobError::DiskFull { .. } => {
            Problem::new(507, "disk-full", "Disk full", error.to_string())
        }
        BlobError::Io { source, .. } => Problem::internal(format!("{error}: {source}")),
    };
    Failure(problem)
}
