//! The coordinator's durable state: a small key-value store behind one trait, and a folder of blobs.
//!
//! [`Store`] is what the control plane sees: revisions, compare-and-swap, prefix lists and watches,
//! limited as etcd is (see [`Txn`]). [`SqliteStore`] is the embedded engine. A change too large for one
//! transaction is a blob in a [`BlobStore`] and one compare-and-swap of a key that names it.
#![forbid(unsafe_code)]

mod api;
mod blob;
mod error;
mod sqlite;

#[cfg(test)]
mod testing;

pub use api::{
    Change, Entry, Guard, Identity, Listing, MAX_TXN_BYTES, MAX_TXN_OPS, Op, Store, Txn,
};
pub use blob::{BlobError, BlobStore, Digest, PARTIAL_AGE, UNUSED_AGE, Upload};
pub use error::StoreError;
pub use sqlite::{Backup, Restored, SCHEMA, SqliteStore, backup, restore};
