//! Packages on this node: fetched once for all instances, unpacked, kept as long as they are used.

mod fetch;
mod venv;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use berth_model::digest::{BlobDigest, PackageDigest};
use berth_model::instance::Reason;
use berth_package::{Limits, UnpackError};
use tokio::sync::{Semaphore, mpsc, watch};
use tonic::transport::Channel;

use crate::data::DataDir;
use crate::reconcile::Event;

/// Packages that are fetched and unpacked at a time: each takes a disk's and a core's full attention.
const AT_A_TIME: usize = 2;

/// News of a package that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PackageNews {
    /// It is being tried, with trouble.
    Trouble(Reason),
    /// It is on disk, complete.
    Ready,
    /// It did not work; not to be tried again before the time is over.
    Failed {
        /// Why and what to do.
        reason: Reason,
        /// How long to wait.
        retry: Duration,
        /// It will be the same again unless somebody does something.
        permanent: bool,
    },
}

/// What to fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The package.
    pub digest: PackageDigest,
    /// The archive that holds it.
    pub blob: BlobDigest,
    /// The archive's length.
    pub bytes: u64,
    /// Its Python environment too.
    pub venv: bool,
}

/// Fetches and keeps packages.
#[derive(Debug)]
pub struct Packages {
    store: PathBuf,
    blobs: PathBuf,
    venvs: PathBuf,
    channel: watch::Receiver<Option<Channel>>,
    events: mpsc::Sender<Event>,
    running: BTreeSet<PackageDigest>,
    failures: BTreeMap<PackageDigest, u32>,
    turns: Arc<Semaphore>,
}

impl Packages {
    /// In an agent's data folder. Leftovers of interrupted unpacking are deleted, and begun archives that are
    /// not in `wanted`.
    pub fn open(
        data: &DataDir,
        wanted: &BTreeSet<BlobDigest>,
        channel: watch::Receiver<Option<Channel>>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let store = data.packages();
        if let Err(error) = berth_package::sweep(&store) {
            tracing::warn!(
                error = crate::chain(&error),
                "cannot delete what was half unpacked"
            );
        }
        sweep_archives(&data.blobs(), wanted);
        venv::sweep(&data.venvs(), &store);
        Self {
            store,
            blobs: data.blobs(),
            venvs: data.venvs(),
            channel,
            events,
            running: BTreeSet::new(),
            failures: BTreeMap::new(),
            turns: Arc::new(Semaphore::new(AT_A_TIME)),
        }
    }

    /// The folder of a package that is there.
    pub fn path(&self, digest: PackageDigest) -> PathBuf {
        self.store.join(digest.hex())
    }

    /// Whether a package is there, with its Python environment if that is needed.
    pub fn is_ready(&self, digest: PackageDigest, venv: bool) -> bool {
        // Both appear by one rename, complete.
        self.path(digest).is_dir() && (!venv || self.venv(digest).is_some())
    }

    /// The Python environment of a package that is there.
    pub fn venv(&self, digest: PackageDigest) -> Option<PathBuf> {
        venv::find(&self.venvs, digest)
    }

    /// Begins to fetch and unpack, unless that is under way; news come as events.
    pub fn prepare(&mut self, wanted: Wanted) {
        if !self.running.insert(wanted.digest) {
            return;
        }
        let failures = self.failures.get(&wanted.digest).copied().unwrap_or(0);
        let job = Job {
            wanted,
            store: self.store.clone(),
            venvs: self.venvs.clone(),
            archive: self.blobs.join(wanted.blob.hex()),
            channel: self.channel.clone(),
            events: self.events.clone(),
            failures,
        };
        let turns = self.turns.clone();
        tokio::spawn(async move {
            // The semaphore is never closed; without a permit it would only be less orderly.
            let _turn = turns.acquire_owned().await;
            job.run().await;
        });
    }

    /// To be told of every [`PackageNews`] that is not trouble.
    pub fn done(&mut self, digest: PackageDigest, news: &PackageNews) {
        match news {
            PackageNews::Trouble(_) => return,
            PackageNews::Ready => _ = self.failures.remove(&digest),
            PackageNews::Failed { .. } => *self.failures.entry(digest).or_insert(0) += 1,
        }
        self.running.remove(&digest);
    }

    /// Deletes packages that are not in `used`, but for the newest `keep`. In the background.
    pub fn collect(&self, used: BTreeSet<PackageDigest>, keep: usize) {
        let (store, venvs) = (self.store.clone(), self.venvs.clone());
        tokio::task::spawn_blocking(move || {
            let unused = unused(&store, &used, keep);
            venv::collect(&venvs, &unused.iter().copied().collect());
            for digest in unused {
                match berth_package::remove(&store, digest) {
                    Ok(_) => tracing::info!(%digest, "deleted a package that is not used"),
                    Err(error) => {
                        tracing::warn!(%digest, error = crate::chain(&error), "cannot delete a package");
                    }
                }
            }
        });
    }
}

/// Deletes begun archives that nobody wants.
fn sweep_archives(blobs: &Path, wanted: &BTreeSet<BlobDigest>) {
    let names: BTreeSet<String> = wanted.iter().map(BlobDigest::hex).collect();
    for entry in std::fs::read_dir(blobs).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let unwanted = name.to_str().is_none_or(|name| !names.contains(name));
        if unwanted && let Err(error) = std::fs::remove_file(entry.path()) {
            tracing::warn!(path = ?entry.path(), %error, "cannot delete a begun archive");
        }
    }
}

/// The packages to delete: unused, and older than the newest `keep` of those.
fn unused(store: &Path, used: &BTreeSet<PackageDigest>, keep: usize) -> Vec<PackageDigest> {
    let Ok(entries) = std::fs::read_dir(store) else {
        return Vec::new();
    };
    let mut found: Vec<(SystemTime, PackageDigest)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let digest = format!("sha256:{}", entry.file_name().to_str()?)
                .parse()
                .ok()?;
            let made = entry.metadata().ok()?.modified().ok()?;
            (!used.contains(&digest)).then_some((made, digest))
        })
        .collect();
    found.sort();
    found.truncate(found.len().saturating_sub(keep));
    found.into_iter().map(|(_, digest)| digest).collect()
}

/// One attempt to get one package.
struct Job {
    wanted: Wanted,
    store: PathBuf,
    venvs: PathBuf,
    archive: PathBuf,
    channel: watch::Receiver<Option<Channel>>,
    events: mpsc::Sender<Event>,
    failures: u32,
}

impl Job {
    async fn run(mut self) {
        let news = match self.attempt().await {
            Ok(()) => PackageNews::Ready,
            Err(problem) => {
                tracing::warn!(digest = %self.wanted.digest, problem = problem.text, "cannot prepare a package");
                problem.news(self.failures)
            }
        };
        let digest = self.wanted.digest;
        // If nobody listens any more, the agent is ending.
        let _ = self.events.send(Event::Package { digest, news }).await;
    }

    async fn attempt(&mut self) -> Result<(), Problem> {
        let digest = self.wanted.digest;
        let trouble = |text: String| {
            let reason = Reason::Package { error: text };
            let news = PackageNews::Trouble(reason);
            let events = self.events.clone();
            async move { _ = events.send(Event::Package { digest, news }).await }
        };
        let package = self.store.join(digest.hex());
        if !package.is_dir() {
            fetch::fetch(&self.wanted, &self.archive, &mut self.channel, &trouble).await?;
            let (archive, store) = (self.archive.clone(), self.store.clone());
            let unpacked =
                tokio::task::spawn_blocking(move || unpack(&archive, digest, &store)).await;
            unpacked.map_err(|error| Problem::here(format!("unpacking broke off: {error}")))??;
        }
        if self.wanted.venv && venv::find(&self.venvs, digest).is_none() {
            trouble("its Python environment is being made from requirements.txt".to_owned()).await;
            venv::make(&self.venvs, digest, &package).await?;
        }
        Ok(())
    }
}

fn unpack(archive: &Path, digest: PackageDigest, store: &Path) -> Result<(), Problem> {
    let open = |error| Problem::here(format!("cannot open {}: {error}", archive.display()));
    let file = File::open(archive).map_err(open)?;
    let result = berth_package::unpack(file, digest, store, Limits::default());
    // Of use no more either way: unpacked, or to be fetched anew in case it was damaged here. Unless the
    // disk was the problem: then it is as good as before.
    if !matches!(result, Err(UnpackError::Io { .. })) {
        let _ = std::fs::remove_file(archive);
    }
    result.map(|_| ()).map_err(|error| {
        let text = crate::chain(&error);
        if error.is_permanent() {
            Problem {
                text: format!("{text}; push the package again and deploy that"),
                permanent: true,
                node: false,
            }
        } else {
            Problem::here(text)
        }
    })
}

/// Why a package could not be had.
#[derive(Debug)]
struct Problem {
    text: String,
    /// The same will happen again unless somebody does something.
    permanent: bool,
    /// The node is at fault, not the package.
    node: bool,
}

impl Problem {
    /// A problem of this node.
    fn here(text: String) -> Self {
        Self {
            text,
            permanent: false,
            node: true,
        }
    }

    fn news(self, failures: u32) -> PackageNews {
        let first = Duration::from_secs(if self.permanent { 30 } else { 2 });
        let most = Duration::from_secs(if self.permanent { 600 } else { 60 });
        let retry = first.saturating_mul(1 << failures.min(16)).min(most);
        let error = self.text;
        let reason = if self.node {
            Reason::Node { error }
        } else {
            Reason::Package { error }
        };
        PackageNews::Failed {
            reason,
            retry,
            permanent: self.permanent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_unused_packages_are_kept() {
        let store = tempfile::tempdir().unwrap();
        let digest = |n: u8| PackageDigest::from_bytes([n; 32]);
        for n in 1..=4u8 {
            let path = store.path().join(digest(n).hex());
            std::fs::create_dir(&path).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(n));
            File::open(&path).unwrap().set_modified(time).unwrap();
        }
        std::fs::create_dir(store.path().join(".tmp-x")).unwrap();
        let used = BTreeSet::from([digest(2)]);
        assert_eq!(unused(store.path(), &used, 1), [digest(1), digest(3)]);
        assert_eq!(unused(store.path(), &used, 5), []);
    }

    #[test]
    fn begun_archives_that_nobody_wants_are_deleted() {
        let blobs = tempfile::tempdir().unwrap();
        let blob = |n: u8| BlobDigest::from_bytes([n; 32]);
        for n in 1..=2 {
            std::fs::write(blobs.path().join(blob(n).hex()), "x").unwrap();
        }
        sweep_archives(blobs.path(), &BTreeSet::from([blob(2)]));
        assert!(!blobs.path().join(blob(1).hex()).exists());
        assert!(blobs.path().join(blob(2).hex()).exists());
        sweep_archives(&blobs.path().join("absent"), &BTreeSet::new());
    }

    #[test]
    fn a_broken_package_is_not_tried_again_at_once() {
        let problem = |permanent| Problem {
            text: "x".into(),
            permanent,
            node: false,
        };
        let wait = |permanent, failures| match problem(permanent).news(failures) {
            PackageNews::Failed { retry, .. } => retry.as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!((wait(true, 0), wait(true, 9), wait(false, 0)), (30, 600, 2));
    }
}
