use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use berth_model::api::{ModelVersionView, RegisterModel};
use berth_model::digest::BlobDigest;
use reqwest::Method;
use reqwest::header::HeaderMap;

use crate::client::Client;
use crate::output;
use crate::progress::Progress;

/// Bytes per request: what is lost at most when a connection breaks.
const CHUNK: u64 = 8 << 20;
/// Times that one upload goes on after a failure.
const ATTEMPTS: u32 = 5;

pub(super) async fn run(client: &Client, package: &Path) -> Result<()> {
    let temp = tempfile::tempdir().context("no temporary folder")?;
    let (archive, summary) = if package.is_dir() {
        let archive = temp.path().join("package.tar.zst");
        let summary = super::super::package::pack(package, &archive)?;
        (archive, summary)
    } else {
        (package.to_path_buf(), berth_package::verify(package, None)?)
    };
    upload(client, &archive, summary.archive, summary.archive_size).await?;
    let model: ModelVersionView = client
        .post(
            "/v1/models",
            &RegisterModel {
                blob: summary.archive,
            },
        )
        .await?;
    output::line(&format!(
        "{}@{}  #{}  {}",
        model.name, model.version, model.serial, model.digest
    ))
}

async fn upload(client: &Client, archive: &Path, digest: BlobDigest, size: u64) -> Result<()> {
    let mut progress = Progress::bytes("uploading", size);
    let mut failures = 0;
    let mut offset = stands_at(client, digest).await?;
    while let Some(from) = offset {
        progress.at(from, size);
        match chunk(client, archive, digest, from, size).await {
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
    progress.at(size, size);
    progress.done();
    Ok(())
}

/// Where the coordinator wants the next byte; none when it has them all.
async fn stands_at(client: &Client, digest: BlobDigest) -> Result<Option<u64>> {
    let response = client
        .send(client.request(Method::HEAD, &path(digest)))
        .await?;
    if complete(response.headers()) {
        return Ok(None);
    }
    next(response.headers()).map(Some)
}

/// Sends one chunk; where the next one starts, none when all is there.
async fn chunk(
    client: &Client,
    archive: &Path,
    digest: BlobDigest,
    from: u64,
    size: u64,
) -> Result<Option<u64>> {
    let doing = || format!("cannot read {}", archive.display());
    let mut file = std::fs::File::open(archive).with_context(doing)?;
    file.seek(SeekFrom::Start(from)).with_context(doing)?;
    let mut bytes = Vec::new();
    file.take(CHUNK)
        .read_to_end(&mut bytes)
        .with_context(doing)?;
    let request = client
        .request(Method::PATCH, &path(digest))
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

fn path(digest: BlobDigest) -> String {
    format!("/v1/blobs/{digest}")
}
