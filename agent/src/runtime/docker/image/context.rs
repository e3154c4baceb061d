//! A build's context as a stream: however large a package is, only a few blocks of it are in memory.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc;

use super::recipe::{Dockerfile, text};

/// What a preset's Dockerfile is called in its context.
pub(super) const PRESET_FILE: &str = "Dockerfile.berth";

/// Size of a block, and how many wait.
const BLOCK: usize = 64 << 10;
const BLOCKS: usize = 8;

/// Whether a package brings its Python packages along.
pub(super) fn has_wheels(package: &Path) -> bool {
    package.join("wheels").is_dir()
}

/// The context of a Dockerfile over an unpacked package. The stream ends with an error if a file cannot be read.
pub(super) fn stream(
    dockerfile: &Dockerfile,
    package: &Path,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let (blocks, receiver) = mpsc::channel(BLOCKS);
    let (dockerfile, package) = (dockerfile.clone(), package.to_owned());
    tokio::task::spawn_blocking(move || {
        let out = Blocks {
            out: blocks.clone(),
            block: Vec::with_capacity(BLOCK),
        };
        if let Err(error) = write(out, &dockerfile, &package) {
            // Nobody reads any more if the daemon has hung up.
            let _ = blocks.blocking_send(Err(error));
        }
    });
    futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|block| (block, receiver))
    })
}

fn write(out: Blocks, dockerfile: &Dockerfile, package: &Path) -> io::Result<()> {
    let mut tar = tar::Builder::new(out);
    tar.follow_symlinks(false);
    tar.mode(tar::HeaderMode::Deterministic);
    match dockerfile {
        Dockerfile::Own { .. } => tar.append_dir_all(".", package)?,
        Dockerfile::Preset { base, python } => {
            let wheels = has_wheels(package);
            let text = text(base, *python, wheels);
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o444);
            tar.append_data(&mut header, PRESET_FILE, text.as_bytes())?;
            if *python {
                let name = "requirements.txt";
                tar.append_path_with_name(package.join(name), name)?;
            }
            if *python && wheels {
                tar.append_dir_all("wheels", package.join("wheels"))?;
            }
        }
    }
    tar.into_inner()?.flush()
}

/// A writer that sends blocks.
struct Blocks {
    out: mpsc::Sender<io::Result<Bytes>>,
    block: Vec<u8>,
}

impl Write for Blocks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == BLOCK {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        self.out
            .blocking_send(Ok(block.into()))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Where a Dockerfile is in its context.
pub(super) fn path(dockerfile: &Dockerfile) -> String {
    match dockerfile {
        Dockerfile::Own { path } => path.clone(),
        Dockerfile::Preset { .. } => PRESET_FILE.to_owned(),
    }
}

/// What is missing in a package for a Dockerfile.
pub(super) fn missing(dockerfile: &Dockerfile, package: &Path) -> Option<PathBuf> {
    let needed = match dockerfile {
        Dockerfile::Own { path } => package.join(path),
        Dockerfile::Preset { python: true, .. } => package.join("requirements.txt"),
        Dockerfile::Preset { .. } => return None,
    };
    (!needed.is_file()).then_some(needed)
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt;

    use super::*;

    async fn names(dockerfile: &Dockerfile, package: &Path) -> Vec<String> {
        let blocks: Vec<Bytes> = stream(dockerfile, package).try_collect().await.unwrap();
        let bytes = blocks.concat();
        let mut archive = tar::Archive::new(&bytes[..]);
        let entries = archive.entries().unwrap().map(|entry| entry.unwrap());
        let files = entries.filter(|entry| entry.header().entry_type().is_file());
        let mut names: Vec<String> = files
            .map(|file| file.path().unwrap().display().to_string())
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_preset_takes_what_it_needs_and_a_dockerfile_everything() {
        let package = tempfile::tempdir().unwrap();
        let file = |name: &str, size: usize| {
            let path = package.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, vec![b'x'; size]).unwrap();
        };
        file("Dockerfile", 5);
        file("model/weights", 3 * BLOCK + 7);
        file("requirements.txt", 1);
        file("wheels/a.whl", 1);
        let own = Dockerfile::Own {
            path: "Dockerfile".into(),
        };
        assert_eq!(
            names(&own, package.path()).await,
            [
                "Dockerfile",
                "model/weights",
                "requirements.txt",
                "wheels/a.whl"
            ]
        );
        let preset = |python| Dockerfile::Preset {
            base: "x".into(),
            python,
        };
        assert_eq!(names(&preset(false), package.path()).await, [PRESET_FILE]);
        assert_eq!(
            names(&preset(true), package.path()).await,
            [PRESET_FILE, "requirements.txt", "wheels/a.whl"]
        );
        assert_eq!(missing(&own, package.path()), None);
        let absent = Dockerfile::Own { path: "no".into() };
        assert!(missing(&absent, package.path()).is_some());
    }
}
