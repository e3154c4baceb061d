//! A user for each instance, out of a range that nobody else uses.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::thread::{CapabilitySet, capabilities};

use super::super::Ground;
use super::folders;
use crate::runtime::process::io_error;
use crate::runtime::{Confinement, Launch, RuntimeError};

/// Gives users out. An instance keeps its user as long as it has a folder: whose that is, is how the next agent knows.
#[derive(Debug)]
pub(super) struct Users {
    data: PathBuf,
    range: (u32, u32),
    leases: Mutex<Vec<Lease>>,
}

#[derive(Debug)]
struct Lease {
    folder: PathBuf,
    user: u32,
}

impl Users {
    /// Errors: why instances here run as the agent's user.
    pub(super) fn new(ground: &Ground) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("the agent does not run as root".to_owned());
        }
        let needed = CapabilitySet::SETUID
            | CapabilitySet::SETGID
            | CapabilitySet::CHOWN
            | CapabilitySet::KILL
            | CapabilitySet::DAC_OVERRIDE;
        let mine = capabilities(None).map(|sets| sets.effective);
        if !mine.is_ok_and(|mine| mine.contains(needed)) {
            return Err(
                "the agent may not change users (CAP_SETUID, CAP_SETGID, CAP_CHOWN, CAP_KILL)"
                    .to_owned(),
            );
        }
        if let Some(closed) = closed(&ground.data) {
            let (closed, data) = (closed.display(), ground.data.display());
            return Err(format!(
                "other users cannot come to {data} through {closed}: choose another data_dir"
            ));
        }
        Ok(Self {
            data: ground.data.clone(),
            range: ground.users,
            leases: Mutex::default(),
        })
    }

    /// The user of a launch's instance; none, if another user than the agent's could not use what it is given. Errors:
    /// there is none left.
    pub(super) fn lease(
        &self,
        launch: &Launch,
        wanted: &Confinement,
    ) -> Result<Option<u32>, RuntimeError> {
        let elsewhere = wanted
            .readable
            .iter()
            .filter(|path| !path.starts_with(&self.data));
        let closed = elsewhere
            .filter_map(|path| Some((path, closed(path)?)))
            .next();
        if let Some((path, closed)) = closed {
            let instance = &launch.spec.instance;
            tracing::warn!(
                instance,
                ?path,
                ?closed,
                "it runs as the agent's user: no other can come to what it needs"
            );
            return Ok(None);
        }
        self.take(launch, wanted).map(Some)
    }

    fn take(&self, launch: &Launch, wanted: &Confinement) -> Result<u32, RuntimeError> {
        let refused = |why: &str| RuntimeError::Launch {
            dir: launch.dir.clone(),
            why: why.to_owned(),
        };
        let work = wanted.writable.first();
        let work = work.ok_or_else(|| refused("it has no folder of its own"))?;
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        leases.retain(|lease| lease.folder.exists() && lease.folder != *work);
        let mut taken: BTreeSet<u32> = leases.iter().map(|lease| lease.user).collect();
        let user = match self.owner(work).filter(|user| !taken.contains(user)) {
            Some(user) => user,
            None => {
                // Also other agents' on this machine, and what this one does not know of.
                taken.extend(running());
                taken.extend(self.neighbours(work));
                let seed = work.as_os_str().as_encoded_bytes();
                free(self.range, seed, &taken).ok_or_else(|| {
                    refused("every user of [isolation] users is taken: give it more")
                })?
            }
        };
        leases.push(Lease {
            folder: work.clone(),
            user,
        });
        Ok(user)
    }

    /// Whose a folder is, if it was given to somebody.
    fn owner(&self, folder: &Path) -> Option<u32> {
        let user = fs::symlink_metadata(folder).ok()?.uid();
        (self.range.0..=self.range.1)
            .contains(&user)
            .then_some(user)
    }

    /// The owners of the other instances' folders: `instances/ID/work` beside `instances/MINE/work`.
    fn neighbours(&self, work: &Path) -> Vec<u32> {
        let Some((name, instances)) = work
            .file_name()
            .zip(work.parent().and_then(Path::parent))
            .filter(|(_, instances)| instances.starts_with(&self.data))
        else {
            return Vec::new();
        };
        // What prepares a package has its folder elsewhere.
        let all = [
            (instances, name),
            (&self.data.join("instances"), "work".as_ref()),
        ];
        let folders = all.iter().flat_map(|(instances, name)| {
            let entries = fs::read_dir(instances).into_iter().flatten().flatten();
            entries.map(move |entry| entry.path().join(name))
        });
        folders.filter_map(|folder| self.owner(&folder)).collect()
    }

    /// Lets a user come to its instance's folders: into the data folder, without a look around, and alone into the folder
    /// in which its own is.
    pub(super) fn open_way(&self, wanted: &Confinement, user: u32) -> Result<(), RuntimeError> {
        let own = wanted.writable.first().and_then(|work| work.parent());
        for folder in folders(wanted) {
            let above = folder.ancestors().skip(1);
            for folder in above.take_while(|folder| folder.starts_with(&self.data)) {
                let opened = match own == Some(folder) && folder != self.data {
                    true => open_alone(folder, user),
                    false => open(folder),
                };
                opened.map_err(io_error(format!(
                    "open the way through {}",
                    folder.display()
                )))?;
            }
        }
        Ok(())
    }
}

/// Lets everybody through a folder who knows what is in it.
fn open(folder: &Path) -> std::io::Result<()> {
    let mode = fs::metadata(folder)?.mode() & 0o7777;
    set_mode(folder, mode, mode | 0o011)
}

/// Lets one group through a folder, and nobody else.
fn open_alone(folder: &Path, group: u32) -> std::io::Result<()> {
    let found = fs::metadata(folder)?;
    if found.gid() != group {
        std::os::unix::fs::chown(folder, None, Some(group))?;
    }
    let mode = found.mode() & 0o7777;
    set_mode(folder, mode, mode & 0o7700 | 0o010)
}

fn set_mode(folder: &Path, now: u32, wanted: u32) -> std::io::Result<()> {
    if now == wanted {
        return Ok(());
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(wanted))
}

/// The folder through which other users cannot come to a path, if there is one.
fn closed(path: &Path) -> Option<&Path> {
    let open = |folder: &&Path| fs::metadata(folder).is_ok_and(|found| found.mode() & 0o001 != 0);
    path.ancestors().skip(1).find(|folder| !open(folder))
}

/// Whether root needs a right to come to a path: a folder on the way is another user's, and open to nobody else.
pub(super) fn is_others(path: &Path) -> bool {
    let closed = |found: fs::Metadata| found.uid() != 0 && found.mode() & 0o001 == 0;
    let mut above = path.ancestors().skip(1);
    above.any(|folder| fs::metadata(folder).is_ok_and(closed))
}

/// A user of a range that is not taken; the first to be looked at depends on `seed`, so that agents on one machine seldom
/// meet.
fn free(range: (u32, u32), seed: &[u8], taken: &BTreeSet<u32>) -> Option<u32> {
    let size = u64::from(range.1.checked_sub(range.0)?) + 1;
    let hash = blake3::hash(seed);
    let first = u64::from_le_bytes(hash.as_bytes()[..8].try_into().ok()?);
    let mut all = (0..size).map(|step| (first % size + step) % size);
    let user = |at: u64| u32::try_from(u64::from(range.0) + at).ok();
    all.find_map(|at| user(at).filter(|user| !taken.contains(user)))
}

/// The users of everything that runs.
fn running() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let owners = entries.filter_map(|entry| Some(entry.metadata().ok()?.uid()));
    owners.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_user_is_found_while_there_is_one() {
        let mut taken = BTreeSet::new();
        for _ in 0..3 {
            let user = free((10, 12), b"seed", &taken).unwrap();
            assert!((10..=12).contains(&user) && taken.insert(user));
        }
        assert_eq!(free((10, 12), b"seed", &taken), None);
        assert_eq!(free((12, 10), b"seed", &taken), None);
    }
}
