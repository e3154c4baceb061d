//! What heartbeats tell of the machine beside its facts: nobody needs to have it on disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_model::digest::PackageDigest;
use berth_model::node::{GpuStatistics, NodeStatistics};
use berth_model::relay::RelayStatistics;
use berth_proto::v1;

use crate::facts::Sampler;

/// Most packages that are told of.
const MOST_PACKAGES: usize = 4096;

/// Shared between those who find things out and the session.
#[derive(Debug, Default)]
pub struct Machine {
    data: PathBuf,
    sampler: Mutex<Sampler>,
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Said {
    gpus: Vec<GpuStatistics>,
    relay: Option<RelayStatistics>,
    packages: BTreeMap<PackageDigest, u64>,
    /// How often the set of packages has changed.
    version: u64,
}

impl Machine {
    /// Whose data are there.
    pub fn new(data: &Path) -> Self {
        Self {
            data: data.to_owned(),
            ..Self::default()
        }
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        // A panic elsewhere does not make the data wrong: every change is complete in itself.
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the GPUs do.
    pub fn gpus(&self, gpus: Vec<GpuStatistics>) {
        self.said().gpus = gpus;
    }

    /// What the relay does, if it tells.
    pub fn relay(&self, relay: Option<RelayStatistics>) {
        self.said().relay = relay;
    }

    /// The packages that are unpacked, with their sizes.
    pub fn packages(&self, packages: BTreeMap<PackageDigest, u64>) {
        let mut said = self.said();
        if !said.packages.keys().eq(packages.keys()) {
            said.version += 1;
        }
        said.packages = packages;
    }

    /// Looks at what changes all the time. Blocks for as long as the file system does.
    pub fn look(&self) -> NodeStatistics {
        let mut sampler = self.sampler.lock().unwrap_or_else(PoisonError::into_inner);
        let looked = sampler.sample(&self.data);
        drop(sampler);
        let said = self.said();
        NodeStatistics {
            packages_bytes: said.packages.values().sum(),
            gpus: said.gpus.clone(),
            relay: said.relay,
            ..looked
        }
    }

    /// The packages, if they are not those of the version `told`, which becomes the one that is told now.
    pub fn news(&self, told: &mut Option<u64>) -> Option<v1::PackageList> {
        let said = self.said();
        if *told == Some(said.version) {
            return None;
        }
        *told = Some(said.version);
        Some(said.packages.keys().copied().take(MOST_PACKAGES).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_told_once_in_a_session_and_when_they_change() {
        let machine = Machine::new(Path::new("/"));
        let digest = |n: u8| PackageDigest::from_bytes([n; 32]);
        let mut told = None;
        assert_eq!(machine.news(&mut told).unwrap().digests().count(), 0);
        assert_eq!(machine.news(&mut told), None);
        machine.packages(BTreeMap::from([(digest(1), 10), (digest(2), 20)]));
        let list = machine.news(&mut told).unwrap();
        assert!(list.digests().eq([digest(1), digest(2)]));
        // Another size is no news.
        machine.packages(BTreeMap::from([(digest(1), 10), (digest(2), 25)]));
        assert_eq!(machine.news(&mut told), None);
        assert_eq!(machine.look().packages_bytes, 35);
        assert!(machine.news(&mut None).is_some(), "another session");
    }
}
