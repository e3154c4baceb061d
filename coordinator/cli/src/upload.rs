//! Uploading blobs: in chunks, resumed where they stand.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use berth_model::digest::BlobDigest;
use reqwest::Method;
use reqwest::header::HeaderMap;

use crate::client::Client;

/// Bytes per request: what is lost at most when a connection breaks.
const CHUNK: u64 = 8 << 20;
/// Times that one upload goes on after a failure.
const ATTEMPTS: u32 = 5;

/// Uploads a file that has this digest and size, from where an earlier upload of it stands; tells how
/// many bytes are there.
pub(crate) async fn blob(
    client: &Client,
    file: &Path,
    digest: BlobDigest,
    size: u64,
    mut at: impl FnMut(u64),
) -> Result<()> {
    let mut failures = 0;
    let mut offset = stands_at(client, digest).await?;
    while let Some(from) = offset {
        at(from);
        match chunk(client, file, digest, from, size).await {
            Ok(next) => offset = next,
            Err(error) => {
                failures += 1;
                // What the coordinator refuses will be refused again; what broke off may go through.
                if failures >= ATTEMPTS || error.is::<berth_model::problem::Problem>() {
                    return Err(
                        error.context("the upload failed; run the command again to resume it")
                    );
                }
                offset = stands_at(client, digest).await?;
            }
        }
    }
    at(size);
    Ok(())
}

/// Where the coordinator wants the next byte; none when it has them all.
async fn stands_at(client: &Client, digest: BlobDigest) -> Result<Option<u64>> {
    let response = client
        .send(client.request(Method::HEAD, &address(digest)))
        .await?;
    if complete(response.headers()) {
        return Ok(None);
    }
    next(response.headers()).map(Some)
}

/// Sends one chunk; where the next one starts, none when all is there.
async fn chunk(
    client: &Client,
    path: &Path,
    digest: BlobDigest,
    from: u64,
    size: u64,
) -> Result<Option<u64>> {
    let doing = || format!("cannot read {}", path.display());
    let mut file = std::fs::File::open(path).with_context(doing)?;
    file.seek(SeekFrom::Start(from)).with_context(doing)?;
    let mut bytes = Vec::new();
    file.take(CHUNK)
        .read_to_end(&mut bytes)
        .with_context(doing)?;
    let request = client
        .request(Method::PATCH, &address(digest))
        .header("upload-offset", from)
        .header("upload-length", size)
        .body(bytes);
    let response = client.send(request).await?;
    let complete = complete(response.headers());
    let offset = next(response.headers())?;
    if !complete && offset <= from {
        bail!("the upload does not get on: the coordinator stays at byte {offset}");
    }
    Ok((!complete).then_some(offset))
}

fn complete(headers: &HeaderMap) -> bool {
    headers
        .get("upload-complete")
        .is_some_and(|value| value == "?1")
}

fn next(headers: &HeaderMap) -> Result<u64> {
    headers
        .get("upload-offset")
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .context("the coordinator did not say how far the upload has come")
}

fn address(digest: BlobDigest) -> String {
    format!("/v1/blobs/{digest}")
}
