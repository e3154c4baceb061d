//! Fetching a task's input: ranges of blobs, joined into a file or laid out as a folder.
//!
//! It grows under a temporary name, goes on where the last attempt ended, and gets its own name when all
//! of it is there and synced. So whatever has that name is complete.

use std::future::Future;
use std::io::SeekFrom;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_model::instance::Reason;
use berth_model::job::{Piece, ShardInput};
use berth_proto::v1;
use berth_proto::v1::agents_client::AgentsClient;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::sync::watch;
use tonic::Code;
use tonic::transport::Channel;

use super::{connected, names};
use crate::backoff::Backoff;
use crate::files::{FileError, make_dir};
use crate::limit::Limit;

/// Time without a byte after which a transfer is given up.
const STALL: Duration = Duration::from_secs(30);

/// Attempts in a row without a byte after which the task is given up.
const ATTEMPTS: u32 = 8;

/// One file of the input, and what is in it.
struct Target<'a> {
    path: PathBuf,
    pieces: &'a [Piece],
}

/// Why a transfer broke off.
enum Failure {
    Disk(std::io::Error),
    /// The same would happen again.
    Wrong(String),
    /// With whether anything came before.
    Transfer(String, bool),
}

fn input(error: String) -> Reason {
    Reason::Input { error }
}

fn file_error(error: &FileError) -> Reason {
    Reason::Node {
        error: crate::chain(error),
    }
}

/// Fetches the input to `path`. Waits for a session as long as it takes.
pub(super) async fn fetch<F: Future<Output = ()>>(
    shard: &ShardInput,
    path: &Path,
    mut channel: watch::Receiver<Option<Channel>>,
    limit: Option<&Limit>,
    trouble: impl Fn(Reason) -> F,
) -> Result<(), Reason> {
    if path.symlink_metadata().is_ok() {
        return Ok(());
    }
    let part = path.with_extension("part");
    if let Some(work) = path.parent() {
        make_dir(work).map_err(|error| file_error(&error))?;
    }
    for target in targets(shard, &part)? {
        fetch_file(&target, &mut channel, limit, &trouble).await?;
    }
    let (from, to) = (part.clone(), path.to_owned());
    let done = tokio::task::spawn_blocking(move || appear(&from, &to)).await;
    match done {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(file_error(&error)),
        Err(error) => Err(Reason::Node {
            error: format!("laying out the input broke off: {error}"),
        }),
    }
}

/// What is to be fetched where. Nothing is fetched when a name is wrong.
fn targets<'a>(shard: &'a ShardInput, part: &Path) -> Result<Vec<Target<'a>>, Reason> {
    if !shard.folder {
        return Ok(vec![Target {
            path: part.to_owned(),
            pieces: &shard.pieces,
        }]);
    }
    make_dir(part).map_err(|error| file_error(&error))?;
    let mut found: Vec<Target<'a>> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for piece in &shard.pieces {
        let path = names::place(part, &piece.name).map_err(input)?;
        if !seen.insert(piece.name.as_str()) {
            return Err(input(format!("{:?} is in it twice", piece.name)));
        }
        let pieces = std::slice::from_ref(piece);
        found.push(Target { path, pieces });
    }
    Ok(found)
}

/// Gives a complete input its name.
fn appear(part: &Path, path: &Path) -> Result<(), FileError> {
    std::fs::rename(part, path).map_err(FileError::of("name", path))?;
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    let folder = std::fs::File::open(parent).map_err(FileError::of("open", parent))?;
    folder.sync_all().map_err(FileError::of("sync", parent))
}

async fn fetch_file<F: Future<Output = ()>>(
    target: &Target<'_>,
    channel: &mut watch::Receiver<Option<Channel>>,
    limit: Option<&Limit>,
    trouble: &impl Fn(Reason) -> F,
) -> Result<(), Reason> {
    let path = &target.path;
    let disk = |error: std::io::Error| Reason::Node {
        error: format!("cannot write {}: {error}", path.display()),
    };
    if let Some(folder) = path.parent() {
        make_dir(folder).map_err(|error| file_error(&error))?;
    }
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .await
        .map_err(disk)?;
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    let mut failures = 0;
    loop {
        let Some(connected) = connected(channel).await else {
            return Err(Reason::Node {
                error: "the agent is ending".to_owned(),
            });
        };
        match transfer(target.pieces, connected, &mut file, limit).await {
            Ok(()) => break,
            Err(Failure::Disk(error)) => return Err(disk(error)),
            Err(Failure::Wrong(text)) => return Err(input(text)),
            Err(Failure::Transfer(text, progress)) => {
                if progress {
                    failures = 0;
                    backoff.reset();
                }
                failures += 1;
                if failures == ATTEMPTS {
                    return Err(input(text));
                }
                trouble(input(text)).await;
                tokio::time::sleep(backoff.wait()).await;
            }
        }
    }
    file.sync_all().await.map_err(disk)
}

/// Goes on where the file ends.
async fn transfer(
    pieces: &[Piece],
    channel: Channel,
    file: &mut File,
    limit: Option<&Limit>,
) -> Result<(), Failure> {
    let whole: u64 = pieces.iter().map(|piece| piece.bytes).sum();
    let mut have = file.seek(SeekFrom::End(0)).await.map_err(Failure::Disk)?;
    if have > whole {
        file.set_len(0).await.map_err(Failure::Disk)?;
        have = file.seek(SeekFrom::Start(0)).await.map_err(Failure::Disk)?;
    }
    let mut client = AgentsClient::new(channel).max_decoding_message_size(16 << 20);
    let (mut begin, mut progress) = (0, false);
    for piece in pieces {
        let end = begin + piece.bytes;
        while have < end {
            let length = match limit {
                Some(limit) => limit.pass(end - have).await,
                None => end - have,
            };
            let range = have - begin..have - begin + length;
            fetch_range(&mut client, piece, range, file, &mut progress).await?;
            have += length;
        }
        begin = end;
    }
    file.flush().await.map_err(Failure::Disk)
}

/// Fetches a range of a piece.
async fn fetch_range(
    client: &mut AgentsClient<Channel>,
    piece: &Piece,
    range: Range<u64>,
    file: &mut File,
    progress: &mut bool,
) -> Result<(), Failure> {
    let request = v1::FetchBlobRequest {
        blob: piece.blob.to_string(),
        offset: piece.offset + range.start,
        length: range.end - range.start,
    };
    let mut have = range.start;
    let mut stream = limited(client.fetch_blob(request), *progress)
        .await?
        .into_inner();
    loop {
        let next = limited(stream.message(), *progress).await;
        if next.is_err() {
            // What came before the break is kept.
            file.flush().await.map_err(Failure::Disk)?;
        }
        let Some(chunk) = next? else { break };
        have += chunk.data.len() as u64;
        if have > range.end {
            return Err(Failure::Wrong(format!(
                "the coordinator sent more of {} than was asked for: upgrade it",
                piece.blob
            )));
        }
        file.write_all(&chunk.data).await.map_err(Failure::Disk)?;
        *progress = true;
    }
    if have < range.end {
        file.flush().await.map_err(Failure::Disk)?;
        return Err(Failure::Transfer(
            format!(
                "fetching {} broke off at byte {have} of {}",
                piece.blob, piece.bytes
            ),
            *progress,
        ));
    }
    Ok(())
}

async fn limited<T>(
    call: impl Future<Output = Result<T, tonic::Status>>,
    progress: bool,
) -> Result<T, Failure> {
    match tokio::time::timeout(STALL, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(status)) if status.code() == Code::NotFound => Err(Failure::Wrong(format!(
            "the coordinator does not have it any more ({}); run the job again",
            status.message()
        ))),
        Ok(Err(status)) => Err(Failure::Transfer(
            format!("fetching failed: {}", status.message()),
            progress,
        )),
        Err(_) => Err(Failure::Transfer(
            format!("fetching stalled for {STALL:?}"),
            progress,
        )),
    }
}
