//! Fetching an archive, from where the last attempt ended.

use std::future::Future;
use std::io::SeekFrom;
use std::path::Path;
use std::time::Duration;

use berth_proto::v1;
use berth_proto::v1::agents_client::AgentsClient;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::sync::watch;
use tonic::Code;
use tonic::transport::Channel;

use super::{Problem, Wanted};
use crate::backoff::Backoff;
use crate::limit::Limit;

/// Time without a byte after which a transfer is given up.
const STALL: Duration = Duration::from_secs(30);

/// Attempts after which the failure is told to the planner, which tries again more slowly.
const ATTEMPTS: u32 = 8;

/// Fetches into `archive`, going on behind what is there. Waits for a session as long as it takes.
pub(super) async fn fetch<F: Future<Output = ()>>(
    wanted: &Wanted,
    archive: &Path,
    channel: &mut watch::Receiver<Option<Channel>>,
    limit: Option<&Limit>,
    trouble: impl Fn(String) -> F,
) -> Result<(), Problem> {
    let disk = |error: std::io::Error| Problem::of_disk("write", archive, &error);
    if let Some(folder) = archive.parent() {
        std::fs::create_dir_all(folder).map_err(disk)?;
    }
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(archive)
        .await
        .map_err(disk)?;
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    for attempt in 1.. {
        let connected = channel
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|c| c.clone());
        let Some(connected) = connected else {
            return Err(Problem::here("the agent is ending".to_owned()));
        };
        match transfer(wanted, connected, &mut file, limit).await {
            Ok(()) => break,
            Err(Failure::Disk(error)) => return Err(disk(error)),
            Err(Failure::Wrong(text)) => {
                file.set_len(0).await.map_err(disk)?;
                return Err(Problem {
                    text,
                    permanent: true,
                    node: false,
                    full: false,
                });
            }
            Err(Failure::Transfer(text)) if attempt == ATTEMPTS => {
                return Err(Problem {
                    text,
                    permanent: false,
                    node: false,
                    full: false,
                });
            }
            Err(Failure::Transfer(text)) => {
                trouble(text).await;
                tokio::time::sleep(backoff.wait()).await;
            }
        }
    }
    file.flush().await.map_err(disk)
}

enum Failure {
    Disk(std::io::Error),
    Wrong(String),
    Transfer(String),
}

async fn transfer(
    wanted: &Wanted,
    channel: Channel,
    file: &mut File,
    limit: Option<&Limit>,
) -> Result<(), Failure> {
    let mut offset = file.seek(SeekFrom::End(0)).await.map_err(Failure::Disk)?;
    if offset > wanted.bytes {
        file.set_len(0).await.map_err(Failure::Disk)?;
        offset = file.seek(SeekFrom::Start(0)).await.map_err(Failure::Disk)?;
    }
    let mut client = AgentsClient::new(channel).max_decoding_message_size(16 << 20);
    while offset < wanted.bytes {
        let length = match limit {
            Some(limit) => limit.pass(wanted.bytes - offset).await,
            None => 0,
        };
        let had = offset;
        offset = piece(&mut client, wanted, offset, length, file).await?;
        if offset == had || (length == 0 && offset < wanted.bytes) {
            return Err(Failure::Transfer(format!(
                "fetching broke off at byte {offset} of {}",
                wanted.bytes
            )));
        }
    }
    Ok(())
}

/// Fetches from `offset` on, at most `length` bytes (0: all); tells how many bytes are there then.
async fn piece(
    client: &mut AgentsClient<Channel>,
    wanted: &Wanted,
    mut offset: u64,
    length: u64,
    file: &mut File,
) -> Result<u64, Failure> {
    let request = v1::FetchBlobRequest {
        blob: wanted.blob.to_string(),
        offset,
        length,
    };
    let mut stream = limited(client.fetch_blob(request)).await?.into_inner();
    while let Some(chunk) = limited(stream.message()).await? {
        offset += chunk.data.len() as u64;
        if offset > wanted.bytes {
            return Err(Failure::Wrong(format!(
                "{} is longer than {} bytes",
                wanted.blob, wanted.bytes
            )));
        }
        file.write_all(&chunk.data).await.map_err(Failure::Disk)?;
    }
    file.flush().await.map_err(Failure::Disk)?;
    Ok(offset)
}

async fn limited<T>(call: impl Future<Output = Result<T, tonic::Status>>) -> Result<T, Failure> {
    match tokio::time::timeout(STALL, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(status)) if status.code() == Code::NotFound => Err(Failure::Wrong(format!(
            "the coordinator does not have the archive ({}); push the package again",
            status.message()
        ))),
        Ok(Err(status)) => Err(Failure::Transfer(format!(
            "fetching failed: {}",
            status.message()
        ))),
        Err(_) => Err(Failure::Transfer(format!("fetching stalled for {STALL:?}"))),
    }
}
