//! The layout of an agent's data folder, and the lock on it.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use berth_model::id::InstanceId;
use sha2::{Digest, Sha256};

use crate::files::{FileError, make_dir};

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another agent uses it.
    #[error("another berth-agent uses {0:?}: stop it first, or give this one its own --data")]
    InUse(PathBuf),
}

/// An agent's data folder; a copy of it is only a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDir {
    root: PathBuf,
}

/// Held as long as an agent uses its data folder.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

impl DataDir {
    /// The folder, made if need be. Its path is made absolute, as start folders must be.
    pub fn open(root: &Path) -> Result<Self, DataError> {
        make_dir(root)?;
        let root = std::fs::canonicalize(root).map_err(FileError::of("find", root))?;
        Ok(Self { root })
    }

    /// Takes the folder for this process. Errors: another process has it.
    pub fn lock(&self) -> Result<DataLock, DataError> {
        let path = self.root.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            // Whoever may open it may lock it.
            .mode(0o600)
            .open(&path)
            .map_err(FileError::of("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(DataLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(DataError::InUse(self.root.clone())),
            Err(TryLockError::Error(source)) => Err(FileError::of("lock", &path)(source).into()),
        }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Key, certificates and name of the node.
    pub fn identity(&self) -> PathBuf {
        self.root.join("identity")
    }

    /// What the coordinator wants and what was given out for it.
    pub fn ledger(&self) -> PathBuf {
        self.root.join("ledger.json")
    }

    /// How the coordinator said last that gateways reach instances.
    pub fn transport(&self) -> PathBuf {
        self.root.join("transport")
    }

    /// Unpacked packages.
    pub fn packages(&self) -> PathBuf {
        self.root.join("packages")
    }

    /// Python environments of packages.
    pub fn venvs(&self) -> PathBuf {
        self.root.join("venvs")
    }

    /// Archives that are being fetched.
    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// All instances.
    pub fn instances(&self) -> PathBuf {
        self.root.join("instances")
    }

    /// One instance.
    pub fn instance(&self, id: &InstanceId) -> PathBuf {
        self.instances().join(id.to_string())
    }

    /// Its home and place for temporary files.
    pub fn work(&self, id: &InstanceId) -> PathBuf {
        self.instance(id).join("work")
    }

    /// The unix socket of a module, short enough for the kernel: a digest stands for the instance.
    pub fn socket(&self, id: &InstanceId) -> PathBuf {
        let digest = Sha256::digest(id.to_string());
        let name = format!("{}.sock", hex::encode(&digest[..8]));
        self.root.join("s").join(name)
    }

    /// The archive of a task's output folder, until it is uploaded.
    pub fn output_archive(&self, id: &InstanceId) -> PathBuf {
        self.instance(id).join("output.tar.zst")
    }

    /// One of its starts.
    pub fn start(&self, id: &InstanceId, start: u32) -> PathBuf {
        self.instance(id).join("starts").join(start.to_string())
    }

    /// The numbers of the starts of which there are folders, ascending.
    pub fn starts(&self, id: &InstanceId) -> Result<Vec<u32>, FileError> {
        let mut found: Vec<u32> = names(&self.instance(id).join("starts"))?
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect();
        found.sort_unstable();
        Ok(found)
    }

    /// The instances of which there are folders.
    pub fn instance_ids(&self) -> Result<Vec<InstanceId>, FileError> {
        let mut found: Vec<InstanceId> = names(&self.instances())?
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect();
        found.sort();
        Ok(found)
    }
}

fn names(dir: &Path) -> Result<Vec<String>, FileError> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(FileError::of("list", dir)(error)),
    };
    entries
        .map(|entry| Ok(entry.map_err(FileError::of("list", dir))?.file_name()))
        .filter_map(|name| name.map(|name| name.into_string().ok()).transpose())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_agents_cannot_share_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let lock = data.lock().unwrap();
        assert!(matches!(data.lock(), Err(DataError::InUse(_))));
        drop(lock);
        data.lock().unwrap();
    }

    #[test]
    fn starts_are_in_the_order_of_their_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let id: InstanceId = "web.1.0.1".parse().unwrap();
        assert!(data.starts(&id).unwrap().is_empty());
        for start in [10, 2, 1] {
            make_dir(&data.start(&id, start)).unwrap();
        }
        make_dir(&data.instances().join("something else")).unwrap();
        assert_eq!(data.starts(&id).unwrap(), [1, 2, 10]);
        assert_eq!(data.instance_ids().unwrap(), [id]);
    }
}
