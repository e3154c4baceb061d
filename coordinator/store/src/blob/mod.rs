//! A folder of blobs named by their BLAKE3, with uploads that can be resumed.

mod error;

use std::path::Path;
use std::time::Duration;

pub use error::BlobError;

/// A blob's BLAKE3.
pub type Digest = [u8; 32];

/// Age at which an upload that was not finished is thrown away.
pub const PARTIAL_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A folder of blobs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BlobStore {}

/// An upload in progress, from [`BlobStore::upload`].
#[derive(Debug)]
pub struct Upload {}

impl BlobStore {
    /// Opens a folder, made if need be, and sweeps old unfinished uploads. Blocks.
    pub fn open(dir: &Path) -> Result<Self, BlobError> {
        unimplemented!("{dir:?}")
    }

    /// Bytes that are safely here: the offset at which an upload goes on, or the size of a whole blob.
    pub async fn offset(&self, _digest: &Digest) -> Result<u64, BlobError> {
        unimplemented!()
    }

    /// Begins, or goes on with, an upload at `offset`. A later call for the same blob takes over from an
    /// earlier one, whose writes then fail with [`BlobError::Superseded`].
    pub async fn upload(&self, _digest: &Digest, _offset: u64) -> Result<Upload, BlobError> {
        unimplemented!()
    }

    /// Appends bytes and syncs them: tells the new offset. [`BlobStore::upload`] in one call.
    pub async fn append(
        &self,
        _digest: &Digest,
        _offset: u64,
        _bytes: &[u8],
    ) -> Result<u64, BlobError> {
        unimplemented!()
    }

    /// Verifies an upload that has reached `size` bytes, and makes it a blob. Does nothing if the blob
    /// is here already.
    pub async fn finish(&self, _digest: &Digest, _size: u64) -> Result<(), BlobError> {
        unimplemented!()
    }

    /// Opens a whole blob.
    pub async fn open_read(&self, _digest: &Digest) -> Result<tokio::fs::File, BlobError> {
        unimplemented!()
    }

    /// Whether the whole blob is here.
    pub async fn exists(&self, _digest: &Digest) -> Result<bool, BlobError> {
        unimplemented!()
    }

    /// Size in bytes of a whole blob, if it is here.
    pub async fn size(&self, _digest: &Digest) -> Result<Option<u64>, BlobError> {
        unimplemented!()
    }

    /// Takes a blob away, if it is here. Readers that have it open keep it.
    pub async fn remove(&self, _digest: &Digest) -> Result<(), BlobError> {
        unimplemented!()
    }

    /// Throws away uploads that were not written to for `age` ([`PARTIAL_AGE`]): tells how many.
    pub async fn sweep(&self, _age: Duration) -> Result<usize, BlobError> {
        unimplemented!()
    }
}

impl Upload {
    /// Writes the next bytes. Not acknowledged until [`Upload::sync`].
    pub async fn write(&mut self, _bytes: &[u8]) -> Result<(), BlobError> {
        unimplemented!()
    }

    /// Makes durable what was written: tells the offset.
    pub async fn sync(&mut self) -> Result<u64, BlobError> {
        unimplemented!()
    }
}
