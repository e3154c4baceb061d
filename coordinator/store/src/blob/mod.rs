//! A folder of blobs named by their BLAKE3, with uploads that can be resumed.
//!
//! Layout: `XX/HEX` is a whole blob (XX are the first two digits of HEX), `partial/HEX` an upload.

mod error;
mod partial;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

pub use error::BlobError;

use self::partial::Partial;

/// A blob's BLAKE3.
pub type Digest = [u8; 32];

/// Age at which an upload that was not finished is thrown away.
pub const PARTIAL_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Age at which a whole blob that nothing needs is thrown away. Long enough to register what was uploaded, and to notice
/// that a backup was restored which does not know it.
pub const UNUSED_AGE: Duration = PARTIAL_AGE;

/// Bytes that an [`Upload`] gathers before it writes them.
const GATHER: usize = 1 << 20;

type Shared = Arc<Mutex<Partial>>;

/// A folder of blobs. Cheap to clone. Within one process it may be opened once only.
#[derive(Debug, Clone)]
pub struct BlobStore {
    dir: Arc<Path>,
    /// Uploads that somebody holds right now.
    active: Arc<Mutex<HashMap<Digest, Weak<Mutex<Partial>>>>>,
}

/// An upload in progress, from [`BlobStore::upload`]. Dropped, it stays where it was synced last, or
/// further.
#[derive(Debug)]
pub struct Upload {
    partial: Shared,
    turn: u64,
    gathered: Vec<u8>,
}

/// Runs what blocks. Errors of the runtime (it ends) are told as I/O errors.
async fn blocking<T: Send + 'static>(
    dir: &Path,
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(BlobError::io("work on", dir)(io::Error::other(error))),
    }
}

fn lock(partial: &Mutex<Partial>) -> std::sync::MutexGuard<'_, Partial> {
    // A partial that panicked halfway marks itself unsure, and is looked at anew.
    partial.lock().unwrap_or_else(PoisonError::into_inner)
}

impl BlobStore {
    /// Opens a folder, made if need be, and sweeps old unfinished uploads. Blocks.
    pub fn open(dir: &Path) -> Result<Self, BlobError> {
        let partials = dir.join("partial");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&partials)
            .map_err(BlobError::io("make", &partials))?;
        sync_dir(dir)?;
        let store = Self {
            dir: dir.into(),
            active: Arc::default(),
        };
        store.sweep_now(PARTIAL_AGE)?;
        Ok(store)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        let name = hex::encode(digest);
        self.dir.join(&name[..2]).join(name)
    }

    /// The upload of a blob, shared by all who work on it.
    fn partial(&self, digest: &Digest) -> Shared {
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(partial) = active.get(digest).and_then(Weak::upgrade) {
            return partial;
        }
        active.retain(|_, partial| partial.strong_count() > 0);
        let path = self.dir.join("partial").join(hex::encode(digest));
        let partial = Arc::new(Mutex::new(Partial::new(path)));
        active.insert(*digest, Arc::downgrade(&partial));
        partial
    }

    /// Bytes that are safely here: the offset at which an upload goes on, or the size of a whole blob.
    pub async fn offset(&self, digest: &Digest) -> Result<u64, BlobError> {
        let (path, partial) = (self.path(digest), self.partial(digest));
        blocking(&self.dir, move || {
            let mut partial = lock(&partial);
            match size_of(&path)? {
                Some(size) => Ok(size),
                None => partial.stand(),
            }
        })
        .await
    }

    /// Begins, or goes on with, an upload at `offset`. A later call for the same blob takes over from an
    /// earlier one, whose writes then fail with [`BlobError::Superseded`]: a client that comes back need
    /// not wait until its dead connection is noticed. Errors: [`BlobError::WrongOffset`].
    pub async fn upload(&self, digest: &Digest, offset: u64) -> Result<Upload, BlobError> {
        let (path, partial) = (self.path(digest), self.partial(digest));
        blocking(&self.dir, move || {
            let mut held = lock(&partial);
            if let Some(expected) = size_of(&path)? {
                return Err(BlobError::WrongOffset { offset, expected });
            }
            let turn = held.begin(offset)?;
            drop(held);
            Ok(Upload {
                partial,
                turn,
                gathered: Vec::new(),
            })
        })
        .await
    }

    /// Appends bytes and syncs them: tells the new offset. [`BlobStore::upload`] in one call.
    pub async fn append(
        &self,
        digest: &Digest,
        offset: u64,
        bytes: &[u8],
    ) -> Result<u64, BlobError> {
        let mut upload = self.upload(digest, offset).await?;
        upload.write(bytes).await?;
        upload.sync().await
    }

    /// Verifies an upload that has reached `size` bytes, and makes it a blob: durable when this
    /// answers. Does nothing if the blob is here already. Errors: [`BlobError::Incomplete`];
    /// [`BlobError::WrongContent`], after which the upload begins anew.
    pub async fn finish(&self, digest: &Digest, size: u64) -> Result<(), BlobError> {
        let (path, partial, digest) = (self.path(digest), self.partial(digest), *digest);
        blocking(&self.dir, move || {
            let mut partial = lock(&partial);
            if size_of(&path)?.is_some() {
                return partial.discard();
            }
            partial.verify(&digest, size)?;
            let parent = path.parent().unwrap_or(Path::new("."));
            make_dir(parent)?;
            let from = partial.path().to_owned();
            fs::rename(&from, &path).map_err(BlobError::io("rename", &from))?;
            partial.forget();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o400))
                .map_err(BlobError::io("make read-only", &path))?;
            sync_dir(parent)
        })
        .await
    }

    /// Opens a whole blob.
    pub async fn open_read(&self, digest: &Digest) -> Result<tokio::fs::File, BlobError> {
        let path = self.path(digest);
        match tokio::fs::File::open(&path).await {
            Ok(file) => Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(BlobError::NotFound {
                digest: hex::encode(digest),
            }),
            Err(error) => Err(BlobError::io("open", &path)(error)),
        }
    }

    /// Where a whole blob is, for code that reads it by its path; it need not be there.
    pub fn path_of(&self, digest: &Digest) -> PathBuf {
        self.path(digest)
    }

    /// Whether the whole blob is here.
    pub async fn exists(&self, digest: &Digest) -> Result<bool, BlobError> {
        Ok(self.size(digest).await?.is_some())
    }

    /// Size in bytes of a whole blob, if it is here.
    pub async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        let path = self.path(digest);
        blocking(&self.dir, move || size_of(&path)).await
    }

    /// Size in bytes of a whole blob, if it is here; it counts as new then. For whoever will need it soon: see
    /// [`BlobStore::remove_older`].
    pub async fn claim(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        let (path, partial) = (self.path(digest), self.partial(digest));
        blocking(&self.dir, move || {
            let _held = lock(&partial);
            let size = size_of(&path)?;
            if size.is_some() {
                let touched = File::open(&path).and_then(|f| f.set_modified(SystemTime::now()));
                touched.map_err(BlobError::io("touch", &path))?;
            }
            Ok(size)
        })
        .await
    }

    /// Whole blobs that nobody has uploaded or claimed for `age`.
    pub async fn older(&self, age: Duration) -> Result<Vec<Digest>, BlobError> {
        let dir = Arc::clone(&self.dir);
        blocking(&self.dir, move || {
            let failed = |what| BlobError::io(what, &dir);
            let mut found = Vec::new();
            for folder in fs::read_dir(&dir).map_err(failed("list"))? {
                let folder = folder.map_err(failed("list"))?;
                if folder.file_name().len() != 2 {
                    continue;
                }
                for blob in fs::read_dir(folder.path()).map_err(failed("list"))? {
                    let blob = blob.map_err(failed("list"))?;
                    let mut digest = [0; 32];
                    let name = blob.file_name();
                    let named = hex::decode_to_slice(name.as_encoded_bytes(), &mut digest);
                    if named.is_ok() && is_older(&blob.path(), age) {
                        found.push(digest);
                    }
                }
            }
            found.sort_unstable();
            Ok(found)
        })
        .await
    }

    /// Takes a blob away if nobody has uploaded or claimed it for `age`; whether it did.
    pub async fn remove_older(&self, digest: &Digest, age: Duration) -> Result<bool, BlobError> {
        let (path, partial) = (self.path(digest), self.partial(digest));
        blocking(&self.dir, move || {
            let _held = lock(&partial);
            if !is_older(&path, age) {
                return Ok(false);
            }
            fs::remove_file(&path).map_err(BlobError::io("remove", &path))?;
            Ok(true)
        })
        .await
    }

    /// Takes a blob away, if it is here. Readers that have it open keep it.
    pub async fn remove(&self, digest: &Digest) -> Result<(), BlobError> {
        let (path, partial) = (self.path(digest), self.partial(digest));
        blocking(&self.dir, move || {
            let _held = lock(&partial);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(BlobError::io("remove", &path)(error))
                }
                _ => Ok(()),
            }
        })
        .await
    }

    /// Throws away uploads that were not written to for `age` ([`PARTIAL_AGE`]): tells how many.
    pub async fn sweep(&self, age: Duration) -> Result<usize, BlobError> {
        let store = self.clone();
        blocking(&self.dir, move || store.sweep_now(age)).await
    }

    fn sweep_now(&self, age: Duration) -> Result<usize, BlobError> {
        let dir = self.dir.join("partial");
        let failed = |what| BlobError::io(what, &dir);
        let mut swept = 0;
        for entry in fs::read_dir(&dir).map_err(failed("list"))? {
            let entry = entry.map_err(failed("list"))?;
            let modified = entry.metadata().and_then(|meta| meta.modified());
            // A clock that was set back makes an upload young, never old.
            let idle = modified
                .ok()
                .and_then(|time| SystemTime::now().duration_since(time).ok());
            let mut digest = [0; 32];
            let named = hex::decode_to_slice(entry.file_name().as_encoded_bytes(), &mut digest);
            if named.is_err() || idle.is_none_or(|idle| idle < age) {
                continue;
            }
            let partial = self.partial(&digest);
            // Held by this call alone: nobody is uploading.
            if Arc::strong_count(&partial) == 1 {
                lock(&partial).discard()?;
                swept += 1;
            }
        }
        Ok(swept)
    }
}

impl Upload {
    /// Writes the next bytes. Not acknowledged until [`Upload::sync`].
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= GATHER {
            self.flush(false).await?;
        }
        Ok(())
    }

    /// Makes durable what was written: tells the offset.
    pub async fn sync(&mut self) -> Result<u64, BlobError> {
        self.flush(true).await
    }

    async fn flush(&mut self, sync: bool) -> Result<u64, BlobError> {
        let (partial, turn) = (Arc::clone(&self.partial), self.turn);
        let bytes = std::mem::take(&mut self.gathered);
        blocking(Path::new("partial"), move || {
            let mut partial = lock(&partial);
            partial.write(turn, &bytes)?;
            if sync { partial.stand() } else { Ok(0) }
        })
        .await
    }
}

/// Size of a whole blob, if it is there.
fn size_of(path: &Path) -> Result<Option<u64>, BlobError> {
    match fs::metadata(path) {
        Ok(meta) => Ok(Some(meta.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(BlobError::io("look at", path)(error)),
    }
}

/// Whether a file is there and was not written to or touched for so long. A clock that was set back makes it young.
fn is_older(path: &Path, age: Duration) -> bool {
    let modified = fs::metadata(path).and_then(|meta| meta.modified());
    let idle = modified
        .ok()
        .and_then(|time| SystemTime::now().duration_since(time).ok());
    idle.is_some_and(|idle| idle >= age)
}

/// Makes a folder, durably.
fn make_dir(dir: &Path) -> Result<(), BlobError> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => sync_dir(dir.parent().unwrap_or(Path::new("."))),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(BlobError::io("make", dir)(error)),
    }
}

fn sync_dir(dir: &Path) -> Result<(), BlobError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(BlobError::io("sync", dir))
}
