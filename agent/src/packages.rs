//! Packages on this node: fetched once for all instances, unpacked, kept as long as they are used.

mod cache;
mod fetch;
mod sandbox;
mod source;
mod venv;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_model::digest::{BlobDigest, PackageDigest};
use berth_model::instance::Reason;
use berth_package::{Limits, UnpackError};
use tokio::sync::{Semaphore, mpsc, watch};
use tonic::transport::Channel;

use crate::data::DataDir;
use crate::disk::{self, Disk};
use crate::limit::Limit;
use crate::reconcile::Event;
use crate::rpc::machine::Machine;
use crate::runtime::Runtime;

pub(crate) use cache::Cache;

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
pub struct Packages {
    store: PathBuf,
    blobs: PathBuf,
    venvs: PathBuf,
    channel: watch::Receiver<Option<Channel>>,
    events: mpsc::Sender<Event>,
    running: BTreeSet<PackageDigest>,
    failures: BTreeMap<PackageDigest, u32>,
    turns: Arc<Semaphore>,
    cache: Arc<Cache>,
    room: Arc<Disk>,
    limit: Option<Arc<Limit>>,
    runtime: Option<Arc<dyn Runtime>>,
}

/// What packages share with others.
#[derive(Clone)]
pub(crate) struct Shared {
    /// The connection to the coordinator, while there is one.
    pub(crate) channel: watch::Receiver<Option<Channel>>,
    /// Where news go.
    pub(crate) events: mpsc::Sender<Event>,
    /// The disk that they are on.
    pub(crate) room: Arc<Disk>,
    /// What heartbeats tell of them.
    pub(crate) machine: Arc<Machine>,
    /// How fast they may come.
    pub(crate) limit: Option<Arc<Limit>>,
    /// Most bytes of all packages, unless instances use more.
    pub(crate) budget: u64,
    /// Runs what a package brings along for its Python environment; none: there are no such environments.
    pub(crate) runtime: Option<Arc<dyn Runtime>>,
}

impl Packages {
    /// In an agent's data folder. Leftovers of interrupted unpacking are deleted, and begun archives that are
    /// not in `wanted`. Whoever opens them measures the cache then, off the event loop.
    pub(crate) fn open(data: &DataDir, wanted: &BTreeSet<BlobDigest>, shared: Shared) -> Self {
        let (store, venvs) = (data.packages(), data.venvs());
        if let Err(error) = berth_package::sweep(&store) {
            tracing::warn!(
                error = crate::chain(&error),
                "cannot delete what was half unpacked"
            );
        }
        sweep_archives(&data.blobs(), wanted);
        venv::sweep(&venvs, &store, shared.runtime.as_ref());
        let cache = Cache::new(store.clone(), venvs.clone(), shared.budget, shared.machine);
        Self {
            store,
            blobs: data.blobs(),
            venvs,
            channel: shared.channel,
            events: shared.events,
            running: BTreeSet::new(),
            failures: BTreeMap::new(),
            turns: Arc::new(Semaphore::new(AT_A_TIME)),
            cache: Arc::new(cache),
            room: shared.room,
            limit: shared.limit,
            runtime: shared.runtime,
        }
    }

    /// What is kept, for whoever makes room.
    pub(crate) fn cache(&self) -> Arc<Cache> {
        self.cache.clone()
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
        self.cache.pin(wanted.digest);
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
            cache: self.cache.clone(),
            room: self.room.clone(),
            limit: self.limit.clone(),
            runtime: self.runtime.clone(),
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

    /// Whether a package is there, and from now on stays there.
    pub(crate) fn claim(&self, digest: PackageDigest, venv: bool) -> bool {
        self.cache.pin(digest);
        self.is_ready(digest, venv)
    }

    /// Only packages in `used`, and those under way, have to stay. The others stay within the budget. Begun archives that
    /// are not in `wanted` go. In the background.
    pub(crate) fn keep(&self, mut used: BTreeSet<PackageDigest>, wanted: BTreeSet<BlobDigest>) {
        used.extend(&self.running);
        self.cache.pin_only(used);
        let (cache, blobs) = (self.cache.clone(), self.blobs.clone());
        let idle = self.running.is_empty();
        tokio::task::spawn_blocking(move || {
            if idle {
                sweep_archives(&blobs, &wanted);
            }
            cache.shrink(0);
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

/// One attempt to get one package.
struct Job {
    wanted: Wanted,
    store: PathBuf,
    venvs: PathBuf,
    archive: PathBuf,
    channel: watch::Receiver<Option<Channel>>,
    events: mpsc::Sender<Event>,
    failures: u32,
    cache: Arc<Cache>,
    room: Arc<Disk>,
    limit: Option<Arc<Limit>>,
    runtime: Option<Arc<dyn Runtime>>,
}

/// How often an archive that comes damaged is fetched anew before that is told as final.
const ANEW: u32 = 2;

/// How often something is tried again at once, because room could be made for it.
const ROUNDS: u32 = 8;

impl Job {
    async fn run(mut self) {
        let mut result = self.attempt().await;
        for _ in 1..ROUNDS {
            match &result {
                Err(problem) if problem.full && self.made_more_room().await => {
                    result = self.attempt().await;
                }
                _ => break,
            }
        }
        let news = match result {
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
            self.make_room().await?;
            let limit = self.limit.as_deref();
            fetch::fetch(
                &self.wanted,
                &self.archive,
                &mut self.channel,
                limit,
                &trouble,
            )
            .await?;
            let (archive, store) = (self.archive.clone(), self.store.clone());
            let (blob, failures) = (self.wanted.blob, self.failures);
            let unpacked = tokio::task::spawn_blocking(move || {
                unpack(&archive, blob, digest, &store, failures)
            })
            .await;
            unpacked.map_err(|error| Problem::here(format!("unpacking broke off: {error}")))??;
            self.added().await;
        }
        if self.wanted.venv && venv::find(&self.venvs, digest).is_none() {
            trouble("its Python environment is being made from requirements.txt".to_owned()).await;
            let runtime = self.runtime.as_ref();
            let runtime = runtime.ok_or_else(|| {
                Problem::here(
                    "this agent starts no processes, as making its Python environment needs"
                        .to_owned(),
                )
            })?;
            venv::make(&self.venvs, digest, &package, runtime).await?;
            self.added().await;
        }
        Ok(())
    }

    /// Deletes what is not used if there is no room for the archive and what is in it, which is at least as large. Errors:
    /// there is none; then nothing is begun, so that what runs keeps the room that it has.
    async fn make_room(&self) -> Result<(), Problem> {
        let (room, cache) = (self.room.clone(), self.cache.clone());
        let (archive, bytes) = (self.archive.clone(), self.wanted.bytes);
        let short = tokio::task::spawn_blocking(move || {
            let begun = archive.metadata().map_or(0, |found| found.len());
            let needed = (2 * bytes).saturating_sub(begun);
            let short = room.missing(needed);
            if short > 0 && cache.shrink(short) > 0 {
                room.missing(needed)
            } else {
                short
            }
        });
        match short.await.unwrap_or(0) {
            0 => Ok(()),
            short => Err(Problem::here(format!(
                "no room on the disk for a package of {} and its archive: {} more must be free. Now {}",
                disk::rough(self.wanted.bytes),
                disk::rough(short),
                self.room.says(),
            ))),
        }
    }

    /// The disk was full although there had been room. True if something could be deleted.
    async fn made_more_room(&self) -> bool {
        self.room.refused(&self.store);
        let (cache, bytes) = (self.cache.clone(), self.wanted.bytes);
        let freed = tokio::task::spawn_blocking(move || cache.shrink(bytes.max(1)));
        freed.await.is_ok_and(|freed| freed > 0)
    }

    /// Counts what has come.
    async fn added(&self) {
        let (cache, digest) = (self.cache.clone(), self.wanted.digest);
        // It is on the disk whether it is counted or not.
        let _ = tokio::task::spawn_blocking(move || cache.added(digest)).await;
    }
}

fn unpack(
    archive: &Path,
    blob: BlobDigest,
    digest: PackageDigest,
    store: &Path,
    failures: u32,
) -> Result<(), Problem> {
    let open = |error| Problem::of_disk("open", archive, &error);
    let file = File::open(archive).map_err(open)?;
    let result = berth_package::unpack(file, digest, store, Limits::default());
    let damaged = result.as_ref().is_err_and(UnpackError::is_permanent) && !is_blob(archive, blob);
    // Of use no more either way: unpacked, or to be fetched anew in case it was damaged here. Unless the
    // disk was the problem: then it is as good as before.
    if !matches!(result, Err(UnpackError::Io { .. })) {
        let _ = std::fs::remove_file(archive);
    }
    result.map(|_| ()).map_err(|error| {
        let text = crate::chain(&error);
        match &error {
            UnpackError::Io { source, .. } => Problem {
                full: disk::is_full(source),
                ..Problem::here(text)
            },
            // Again and again: then it is the coordinator's copy that is damaged.
            _ if damaged && failures < ANEW => Problem::here(format!(
                "the archive was damaged on its way or on this disk, and is fetched anew: {text}"
            )),
            _ => Problem {
                text: format!("{text}; push the package again and deploy that"),
                permanent: true,
                node: false,
                full: false,
            },
        }
    })
}

/// Whether a file is the blob that it should be.
fn is_blob(path: &Path, blob: BlobDigest) -> bool {
    let mut hash = blake3::Hasher::new();
    let read = File::open(path).and_then(|file| hash.update_reader(file).map(|_| ()));
    read.is_ok() && hash.finalize().as_bytes() == blob.as_bytes()
}

/// Why a package could not be had.
#[derive(Debug)]
struct Problem {
    text: String,
    /// The same will happen again unless somebody does something.
    permanent: bool,
    /// The node is at fault, not the package.
    node: bool,
    /// There was no room on the disk.
    full: bool,
}

impl Problem {
    /// A problem of this node.
    fn here(text: String) -> Self {
        Self {
            text,
            permanent: false,
            node: true,
            full: false,
        }
    }

    /// The disk refused.
    fn of_disk(what: &str, path: &Path, error: &std::io::Error) -> Self {
        let path = path.display();
        if disk::is_full(error) {
            Self {
                full: true,
                ..Self::here(format!(
                    "cannot {what} {path}: there is no room on the disk ({error}); make some, then it goes on by itself"
                ))
            }
        } else {
            Self::here(format!("cannot {what} {path}: {error}"))
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
            full: false,
        };
        let wait = |permanent, failures| match problem(permanent).news(failures) {
            PackageNews::Failed { retry, .. } => retry.as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!((wait(true, 0), wait(true, 9), wait(false, 0)), (30, 600, 2));
    }
}
