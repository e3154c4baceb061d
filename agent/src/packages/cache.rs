//! What is kept of packages: how large each is, when it was used last, and which have to go.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use berth_model::digest::PackageDigest;
use berth_package::TakenAway;

use super::venv;
use crate::rpc::machine::Machine;

/// One package with its Python environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept {
    /// On the disk.
    bytes: u64,
    /// The end of its last use, by the folder's time.
    used: SystemTime,
}

#[derive(Debug, Default)]
struct Inner {
    kept: BTreeMap<PackageDigest, Kept>,
    /// What instances use, and what is being prepared: never touched. None: it is not known yet, so all is.
    pinned: Option<BTreeSet<PackageDigest>>,
}

/// The packages on this node. Shared between the reconciler, the jobs that fetch, and whoever makes room.
#[derive(Debug)]
pub(crate) struct Cache {
    store: PathBuf,
    venvs: PathBuf,
    /// Most bytes of all packages together, unless instances use more.
    budget: u64,
    inner: Mutex<Inner>,
    machine: Arc<Machine>,
}

impl Cache {
    /// Of that folder; what is in it is measured by [`Cache::measure`].
    pub(super) fn new(store: PathBuf, venvs: PathBuf, budget: u64, machine: Arc<Machine>) -> Self {
        Self {
            store,
            venvs,
            budget,
            inner: Mutex::default(),
            machine,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere does not make the data wrong: every change is complete in itself.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Measures what is there, then keeps to the budget. Blocks.
    pub(crate) fn measure(&self) {
        let entries = std::fs::read_dir(&self.store);
        let names = entries.into_iter().flatten().flatten();
        let digests = names.filter_map(|entry| {
            let hex = entry.file_name().into_string().ok()?;
            format!("sha256:{hex}").parse().ok()
        });
        for digest in digests {
            self.measure_one(digest);
        }
        self.tell();
        self.shrink(0);
    }

    /// A package, or its environment, has come. Blocks.
    pub(super) fn added(&self, digest: PackageDigest) {
        self.measure_one(digest);
        self.tell();
        self.shrink(0);
    }

    fn measure_one(&self, digest: PackageDigest) {
        let package = self.store.join(digest.hex());
        let Ok(used) = package.metadata().and_then(|found| found.modified()) else {
            return;
        };
        let bytes = size(&package) + size(&self.venvs.join(digest.hex()));
        self.inner().kept.insert(digest, Kept { bytes, used });
    }

    fn tell(&self) {
        let inner = self.inner();
        let sizes = inner
            .kept
            .iter()
            .map(|(digest, kept)| (*digest, kept.bytes));
        self.machine.packages(sizes.collect());
    }

    /// Keeps a package from being deleted, from this moment on.
    pub(super) fn pin(&self, digest: PackageDigest) {
        if let Some(pinned) = &mut self.inner().pinned {
            pinned.insert(digest);
        }
    }

    /// Keeps these from being deleted and no others. Their turn begins with the end of their use.
    pub(super) fn pin_only(&self, pinned: BTreeSet<PackageDigest>) {
        let mut inner = self.inner();
        let now = SystemTime::now();
        let before = inner.pinned.take().unwrap_or_default();
        for digest in before.difference(&pinned) {
            if let Some(kept) = inner.kept.get_mut(digest) {
                kept.used = now;
            }
            // For the agents after this one. If the folder does not take it, it goes a little earlier.
            let touched = std::fs::File::open(self.store.join(digest.hex()));
            let _ = touched.and_then(|folder| folder.set_modified(now));
        }
        inner.pinned = Some(pinned);
    }

    /// Deletes what has not been used for longest until all is within the budget and `short` bytes more are free, as far
    /// as there is something that nothing uses. Tells how much was deleted. Blocks.
    pub(crate) fn shrink(&self, short: u64) -> u64 {
        let mut freed = 0;
        while let Some(gone) = self.take_one(short.saturating_sub(freed)) {
            freed += gone.bytes;
            gone.remove();
        }
        if freed > 0 {
            self.tell();
        }
        freed
    }

    /// Takes one package out of the store. The lock is held meanwhile, so that nobody begins to use it.
    fn take_one(&self, short: u64) -> Option<Gone> {
        let mut inner = self.inner();
        loop {
            let digest = victim(&inner, self.budget, short)?;
            let bytes = inner.kept.remove(&digest).map_or(0, |kept| kept.bytes);
            match berth_package::take_away(&self.store, digest) {
                Ok(package) => {
                    return Some(Gone {
                        digest,
                        bytes,
                        package,
                        venv: venv::take_away(&self.venvs, digest),
                    });
                }
                Err(error) => {
                    tracing::warn!(%digest, error = crate::chain(&error), "cannot delete a package");
                }
            }
        }
    }
}

/// What nobody can use any more, and is still on the disk.
struct Gone {
    digest: PackageDigest,
    bytes: u64,
    package: Option<TakenAway>,
    venv: Option<PathBuf>,
}

impl Gone {
    fn remove(self) {
        let digest = self.digest;
        let removed = self.package.map_or(Ok(()), TakenAway::remove);
        match removed {
            Ok(()) => {
                tracing::info!(%digest, bytes = self.bytes, "deleted a package that is not used");
            }
            Err(error) => {
                tracing::warn!(%digest, error = crate::chain(&error), "cannot delete all of a package");
            }
        }
        if let Some(venv) = self.venv {
            venv::remove(&venv);
        }
    }
}

/// What is to go next: of what nothing uses, the one whose use ended first.
fn victim(inner: &Inner, budget: u64, short: u64) -> Option<PackageDigest> {
    let pinned = inner.pinned.as_ref()?;
    let all: u64 = inner.kept.values().map(|kept| kept.bytes).sum();
    if all <= budget && short == 0 {
        return None;
    }
    inner
        .kept
        .iter()
        .filter(|(digest, _)| !pinned.contains(*digest))
        .min_by_key(|(digest, kept)| (kept.used, **digest))
        .map(|(digest, _)| *digest)
}

/// Bytes that a folder takes on the disk; files that appear or go meanwhile do not matter.
fn size(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else {
                continue;
            };
            bytes += found.blocks() * 512;
            if found.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    fn digest(n: u8) -> PackageDigest {
        PackageDigest::from_bytes([n; 32])
    }

    fn at(n: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(n)
    }

    /// Packages of 100 KB, the first used longest ago.
    fn cache(dir: &Path, count: u8, budget: u64) -> Cache {
        for n in 1..=count {
            let package = dir.join("packages").join(digest(n).hex());
            std::fs::create_dir_all(&package).unwrap();
            std::fs::write(package.join("weights"), vec![n; 100_000]).unwrap();
            let folder = std::fs::File::open(&package).unwrap();
            folder.set_modified(at(u64::from(n))).unwrap();
            let venv = dir.join("venvs").join(digest(n).hex());
            std::fs::create_dir_all(venv.join("0")).unwrap();
        }
        std::fs::create_dir(dir.join("packages/.tmp-x")).unwrap();
        let (store, venvs) = (dir.join("packages"), dir.join("venvs"));
        Cache::new(store, venvs, budget, Arc::default())
    }

    fn there(dir: &Path) -> Vec<u8> {
        let is = |n: &u8| dir.join("packages").join(digest(*n).hex()).exists();
        (1..=9).filter(is).collect()
    }

    #[test]
    fn what_was_not_used_for_longest_goes_and_what_is_used_stays() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path(), 5, 320_000);
        cache.measure();
        assert_eq!(
            there(dir.path()),
            [1, 2, 3, 4, 5],
            "who uses what is not known"
        );
        cache.pin_only(BTreeSet::new());
        cache.pin(digest(1));
        cache.shrink(0);
        assert_eq!(there(dir.path()), [1, 4, 5]);
        assert!(!dir.path().join("venvs").join(digest(2).hex()).exists());
        // Room is wanted beyond the budget.
        assert!(cache.shrink(150_000) >= 200_000);
        assert_eq!(there(dir.path()), [1]);
        assert_eq!(cache.shrink(1), 0);
        let told = cache.machine.look().packages_bytes;
        assert!((100_000..120_000).contains(&told), "{told}");
    }

    #[test]
    fn the_turn_begins_with_the_end_of_the_use_also_for_the_next_agent() {
        let dir = tempfile::tempdir().unwrap();
        let first = cache(dir.path(), 3, u64::MAX);
        first.pin_only(BTreeSet::from([digest(1)]));
        first.measure();
        first.pin_only(BTreeSet::new());
        let (store, venvs) = (dir.path().join("packages"), dir.path().join("venvs"));
        let second = Cache::new(store, venvs, 220_000, Arc::default());
        second.pin_only(BTreeSet::new());
        second.measure();
        assert_eq!(there(dir.path()), [1, 3]);
    }

    proptest! {
        /// Whatever there is: nothing in use goes, nothing goes without need, and nothing that was used later goes
        /// before what was used earlier.
        #[test]
        fn victims_are_unused_needed_and_in_order(
            packages in prop::collection::btree_map(0..40u8, (1..1000u64, 0..20u64), 0..30),
            pinned in prop::collection::btree_set(0..40u8, 0..20),
            budget in 0..20_000u64,
            short in 0..3000u64,
        ) {
            let mut inner = Inner {
                kept: packages.iter().map(|(n, (bytes, used))| {
                    (digest(*n), Kept { bytes: *bytes, used: at(*used) })
                }).collect(),
                pinned: None,
            };
            let pinned: BTreeSet<_> = pinned.iter().copied().map(digest).collect();
            prop_assert_eq!(victim(&inner, budget, short), None);
            inner.pinned = Some(pinned.clone());
            let (mut freed, mut last) = (0, UNIX_EPOCH);
            while let Some(gone) = victim(&inner, budget, short.saturating_sub(freed)) {
                let all: u64 = inner.kept.values().map(|kept| kept.bytes).sum();
                prop_assert!(all > budget || freed < short);
                prop_assert!(!pinned.contains(&gone));
                let kept = inner.kept.remove(&gone).unwrap();
                prop_assert!(kept.used >= last);
                last = kept.used;
                freed += kept.bytes;
            }
            let all: u64 = inner.kept.values().map(|kept| kept.bytes).sum();
            let only_pinned = inner.kept.keys().all(|digest| pinned.contains(digest));
            prop_assert!(only_pinned || (all <= budget && freed >= short));
        }
    }
}
