//! What a job left: on standard output, or as files.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use berth_model::api::{JobView, ShardView};
use berth_model::id::JobName;
use berth_model::job::TaskOutput;
use futures_util::StreamExt;
use reqwest::Method;

use super::one;
use crate::client::Client;
use crate::output as out;
use crate::progress::{Progress, note};

mod unpack;

pub(super) async fn run(client: &Client, job: &JobName, dir: Option<&Path>) -> Result<ExitCode> {
    let view = one(client, job).await?;
    if view.done < view.completions {
        note(&format!(
            "{} of {} shards are done; the others have no output{}",
            view.done,
            view.completions,
            if view.state.is_over() { "" } else { " yet" }
        ));
    }
    let whole = match dir {
        None => return print(client, &view).await,
        Some(dir) => write(client, &view, dir).await?,
    };
    out::line(&format!(
        "{} parts of {job} are in {}",
        whole,
        dir.unwrap_or(Path::new(".")).display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the outputs that are there, in the order of their indices.
pub(super) async fn print(client: &Client, view: &JobView) -> Result<ExitCode> {
    if outputs(view).any(|(_, output)| output.folder) {
        note(&format!(
            "the output is made of folders: `berth job output {} -o DIR` writes them into DIR",
            view.name
        ));
        return Ok(ExitCode::SUCCESS);
    }
    for (index, output) in outputs(view) {
        let mut stdout = std::io::stdout().lock();
        fetch(client, view, index, output, &mut stdout, |_| ()).await?;
        stdout.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn outputs(view: &JobView) -> impl Iterator<Item = (u32, &TaskOutput)> {
    let with = |shard: &ShardView| shard.output.is_some();
    let shards = view.shards.iter().filter(move |shard| with(shard));
    shards.filter_map(|shard| Some((shard.index, shard.output.as_ref()?)))
}

/// Writes `part-00000`, …: each wholly there, or not at all. Answers how many.
async fn write(client: &Client, view: &JobView, dir: &Path) -> Result<usize> {
    let doing = || format!("cannot write into {}", dir.display());
    std::fs::create_dir_all(dir).with_context(doing)?;
    let total: u64 = outputs(view).map(|(_, output)| output.bytes).sum();
    let mut progress = Progress::bytes("fetching", total);
    let (mut before, mut count) = (0, 0);
    for (index, output) in outputs(view) {
        let part = dir.join(format!("part-{index:05}"));
        if part.symlink_metadata().is_ok() {
            bail!("{} is there already: choose another folder", part.display());
        }
        let mut file = tempfile::NamedTempFile::new_in(dir).with_context(doing)?;
        let tell = |done| progress.at(before + done, total);
        fetch(client, view, index, output, file.as_file_mut(), tell).await?;
        if output.folder {
            unpack::folder(file.reopen().with_context(doing)?, dir, &part)?;
        } else {
            persist(file, &part)?;
        }
        before += output.bytes;
        count += 1;
    }
    progress.done();
    Ok(count)
}

/// A temporary file is its owner's only; a part is as any new file.
fn persist(file: tempfile::NamedTempFile, part: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let readable = std::fs::Permissions::from_mode(0o644);
    file.as_file()
        .set_permissions(readable)
        .and_then(|()| file.persist_noclobber(part).map_err(|e| e.error))
        .map(drop)
        .with_context(|| format!("cannot write {}", part.display()))
}

/// Writes one output; what does not have its digest is an error.
async fn fetch(
    client: &Client,
    view: &JobView,
    index: u32,
    output: &TaskOutput,
    to: &mut impl Write,
    mut at: impl FnMut(u64),
) -> Result<()> {
    let path = format!("/v1/jobs/{}/output/{index}", view.name);
    let response = client.send(client.request(Method::GET, &path)).await?;
    let mut chunks = response.bytes_stream();
    let mut hasher = blake3::Hasher::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.with_context(|| format!("the output of shard {index} broke off"))?;
        hasher.update(&chunk);
        to.write_all(&chunk)?;
        at(hasher.count());
    }
    if hasher.finalize().as_bytes() != output.blob.as_bytes() {
        bail!(
            "the output of shard {index} came damaged ({} bytes, not {}): run the command again",
            hasher.count(),
            output.bytes
        );
    }
    Ok(())
}
