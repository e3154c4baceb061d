//! A job's input on its way to shards: which blobs there are, and where their lines begin.

mod lines;

use std::path::PathBuf;

use berth_model::api::{CreateJob, JobInput};
use berth_model::job::ShardInput;
use berth_model::job::shards::{self, InputFile};
use berth_model::problem::Problem;
use berth_store::{BlobError, BlobStore};

use crate::control::NewJob;
use lines::FileLines;

/// Most shards that are tried for; control refuses as many, too.
const MAX_WANTED: u32 = 1_000;

/// Cuts the input. Errors: 422 for what cannot be an input, 404 for blobs that are not here.
pub(crate) async fn cut(blobs: &BlobStore, wanted: CreateJob) -> Result<NewJob, Problem> {
    let completions = wanted.completions.unwrap_or(1);
    if completions == 0 || completions > MAX_WANTED {
        return Err(Problem::invalid(format!(
            "{completions} completions are not possible: choose 1 to {MAX_WANTED}"
        )));
    }
    let Some(input) = &wanted.input else {
        // Nothing to cut: every task has an empty input and goes by its index.
        let shards = vec![ShardInput::default(); completions as usize];
        return Ok(NewJob {
            wanted,
            shards,
            note: None,
        });
    };
    let files = files(blobs, input).await?;
    let shards = if input.folder {
        if let Some(why) = shards::misfit(&files) {
            return Err(Problem::invalid(why));
        }
        shards::of_folder(&files, completions)
    } else {
        of_file(blobs, &files, completions).await?
    };
    let note = fewer(input.folder, shards.len(), completions);
    Ok(NewJob {
        wanted,
        shards,
        note,
    })
}

fn fewer(folder: bool, shards: usize, wanted: u32) -> Option<String> {
    let what = if folder { "file" } else { "line" };
    let s = if shards == 1 { "" } else { "s" };
    (shards < wanted as usize).then(|| {
        format!(
            "the input has not enough {what}s for {wanted} shards: there are {shards} shard{s}, of one {what} \
             each at most"
        )
    })
}

/// The files, all of which must be here and of the size that is said.
async fn files(blobs: &BlobStore, input: &JobInput) -> Result<Vec<InputFile>, Problem> {
    let mut files = Vec::new();
    for file in &input.files {
        match blobs.size(file.blob.as_bytes()).await.map_err(failed)? {
            Some(size) if size == file.bytes => files.push(InputFile {
                name: file.name.clone(),
                blob: file.blob,
                bytes: size,
            }),
            Some(size) => {
                return Err(Problem::invalid(format!(
                    "{:?} ({}) has {size} bytes, not {}",
                    file.name, file.blob, file.bytes
                )));
            }
            None => {
                return Err(Problem::not_found(format!(
                    "{:?} ({}) is not here: upload it first",
                    file.name, file.blob
                )));
            }
        }
    }
    Ok(files)
}

async fn of_file(
    blobs: &BlobStore,
    files: &[InputFile],
    wanted: u32,
) -> Result<Vec<ShardInput>, Problem> {
    let [file] = files else {
        return Err(Problem::invalid(format!(
            "{} files are not one file: say folder = true to deal them out",
            files.len()
        )));
    };
    let (blob, bytes) = (file.blob, file.bytes);
    let path: PathBuf = blobs.path_of(blob.as_bytes());
    let scan = move || {
        let mut lines = FileLines::open(&path, bytes)?;
        shards::of_file(blob, bytes, wanted, &mut lines)
    };
    tokio::task::spawn_blocking(scan)
        .await
        .map_err(|error| Problem::internal(format!("cutting the input failed: {error}")))?
        .map_err(|error| Problem::internal(format!("cannot read {blob}: {error}")))
}

fn failed(error: BlobError) -> Problem {
    Problem::internal(crate::chain(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_model::api::JobFile;

    async fn store(contents: &[&[u8]]) -> (tempfile::TempDir, BlobStore, Vec<JobFile>) {
        let dir = tempfile::tempdir().unwrap();
        let blobs = BlobStore::open(dir.path()).unwrap();
        let mut files = Vec::new();
        for (n, content) in contents.iter().enumerate() {
            let digest = *blake3::hash(content).as_bytes();
            blobs.append(&digest, 0, content).await.unwrap();
            let bytes = content.len() as u64;
            blobs.finish(&digest, bytes).await.unwrap();
            files.push(JobFile {
                name: format!("f{n}"),
                blob: berth_model::digest::BlobDigest::from_bytes(digest),
                bytes,
            });
        }
        (dir, blobs, files)
    }

    fn wanted(folder: bool, files: Vec<JobFile>, completions: u32) -> CreateJob {
        CreateJob {
            completions: Some(completions),
            input: Some(JobInput { folder, files }),
            ..CreateJob::default()
        }
    }

    #[tokio::test]
    async fn a_file_is_cut_where_its_lines_begin() {
        let (_dir, blobs, files) = store(&[b"aaa\nbbb\nccc\n"]).await;
        let new = cut(&blobs, wanted(false, files.clone(), 2)).await.unwrap();
        let pieces: Vec<(u64, u64)> = new
            .shards
            .iter()
            .map(|s| (s.pieces[0].offset, s.pieces[0].bytes))
            .collect();
        assert_eq!(pieces, [(0, 8), (8, 4)]);
        assert_eq!(new.note, None);
        let new = cut(&blobs, wanted(false, files, 8)).await.unwrap();
        assert_eq!(new.shards.len(), 3);
        assert!(new.note.unwrap().contains("3 shards"));
        let none = CreateJob {
            completions: Some(4),
            ..CreateJob::default()
        };
        assert_eq!(cut(&blobs, none).await.unwrap().shards.len(), 4);
    }

    #[tokio::test]
    async fn what_is_no_input_is_refused() {
        let (_dir, blobs, files) = store(&[b"a", b"b"]).await;
        let status = async |wanted: CreateJob| cut(&blobs, wanted).await.err().unwrap().status;
        assert_eq!(status(wanted(false, files.clone(), 1)).await, 422);
        assert_eq!(status(wanted(true, files.clone(), 0)).await, 422);
        assert_eq!(status(wanted(true, files.clone(), 1_001)).await, 422);
        let mut bad = files.clone();
        bad[0].bytes = 7;
        assert_eq!(status(wanted(true, bad, 1)).await, 422);
        let mut bad = files.clone();
        bad[0].name = "../x".into();
        assert_eq!(status(wanted(true, bad, 1)).await, 422);
        let mut bad = files;
        bad[0].blob = berth_model::digest::BlobDigest::from_bytes([9; 32]);
        assert_eq!(status(wanted(true, bad, 1)).await, 404);
    }
}
