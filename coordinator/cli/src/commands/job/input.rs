//! An input file or folder: what is in it, and on its way to the coordinator.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use berth_model::api::{JobFile, JobInput};
use berth_model::digest::BlobDigest;

use crate::client::Client;
use crate::progress::Progress;
use crate::upload;

/// An input that was looked through.
pub(crate) struct Local {
    folder: bool,
    files: Vec<(PathBuf, JobFile)>,
}

impl Local {
    /// As the API takes it.
    pub(crate) fn wanted(&self) -> JobInput {
        JobInput {
            folder: self.folder,
            files: self.files.iter().map(|(_, file)| file.clone()).collect(),
        }
    }
}

/// Uploads the input; what the coordinator has already is not sent again.
pub(super) async fn upload(client: &Client, input: &Path) -> Result<JobInput> {
    let local = look(input)?;
    send(client, &local).await?;
    Ok(local.wanted())
}

/// Looks an input through: which files there are, and what is in them.
pub(crate) fn look(input: &Path) -> Result<Local> {
    let folder = input.is_dir();
    let found = if folder {
        let mut found = Vec::new();
        walk(input, "", &mut found)?;
        found
    } else {
        vec![(input.to_owned(), String::new())]
    };
    let total = found.len() as u64;
    let mut progress = Progress::bytes("reading", total);
    let mut files = Vec::new();
    for (done, (path, name)) in found.into_iter().enumerate() {
        progress.at(done as u64, total);
        let (blob, bytes) = digest(&path)?;
        files.push((path, JobFile { name, blob, bytes }));
    }
    progress.done();
    Ok(Local { folder, files })
}

/// Uploads what was looked through.
pub(crate) async fn send(client: &Client, local: &Local) -> Result<()> {
    let total: u64 = local.files.iter().map(|(_, file)| file.bytes).sum();
    let mut progress = Progress::bytes("uploading", total);
    let mut before = 0;
    for (path, file) in &local.files {
        upload::blob(client, path, file.blob, file.bytes, |at| {
            progress.at(before + at, total);
        })
        .await
        .with_context(|| format!("cannot upload {}", path.display()))?;
        before += file.bytes;
    }
    progress.done();
    Ok(())
}

/// All files below a folder with their relative names, in the order of their names. Links are followed
/// to files only: a folder that is linked to may lie anywhere.
fn walk(dir: &Path, prefix: &str, found: &mut Vec<(PathBuf, String)>) -> Result<()> {
    let doing = || format!("cannot read the folder {}", dir.display());
    let mut entries = std::fs::read_dir(dir)
        .with_context(doing)?
        .collect::<std::io::Result<Vec<_>>>()
        .with_context(doing)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let Some(name) = entry.file_name().to_str().map(|n| format!("{prefix}{n}")) else {
            bail!("the name of {} is not UTF-8: rename it", path.display());
        };
        let meta = std::fs::metadata(&path)
            .with_context(|| format!("cannot look at {}", path.display()))?;
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        if meta.is_file() {
            found.push((path, name));
        } else if meta.is_dir() && !is_link {
            walk(&path, &format!("{name}/"), found)?;
        } else {
            bail!(
                "{} is neither a file nor a folder: take it out of the input",
                path.display()
            );
        }
    }
    Ok(())
}

fn digest(path: &Path) -> Result<(BlobDigest, u64)> {
    let mut hasher = blake3::Hasher::new();
    std::fs::File::open(path)
        .and_then(|file| hasher.update_reader(file).map(drop))
        .with_context(|| format!("cannot read {}", path.display()))?;
    let digest = BlobDigest::from_bytes(*hasher.finalize().as_bytes());
    Ok((digest, hasher.count()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_walked_in_order() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("b")).unwrap();
        for name in ["c", "a", "b/x"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        let mut found = Vec::new();
        walk(dir.path(), "", &mut found).unwrap();
        let names: Vec<&str> = found.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names, ["a", "b/x", "c"]);
        let (blob, bytes) = digest(&dir.path().join("a")).unwrap();
        assert_eq!(blob.as_bytes(), blake3::hash(b"a").as_bytes());
        assert_eq!(bytes, 1);
        std::os::unix::fs::symlink("/", dir.path().join("out")).unwrap();
        assert!(walk(dir.path(), "", &mut Vec::new()).is_err());
    }
}
