//! Service packages: folder ⇄ archive ⇄ content-addressed folder.
//!
//! A package is a folder with a manifest `berth.toml`. It travels as `.tar.zst` and is identified by
//! the SHA-256 of its canonical [`Index`], so that neither the compressor nor the archiver matters.
//! [`build()`] makes an archive, [`verify`] and [`inspect`] read one without writing anything, and
//! [`unpack`] puts one under `STORE/<hex of the digest>`: complete, durable and read-only, or not at
//! all. [`init`] writes small packages that work as they are.
//!
//! Reading trusts nothing: see [`Refused`] for what is turned away, and [`Limits`] for how much of it
//! is read at most. The archive format is a strict subset of POSIX tar: a single zstd frame; folders
//! before what they hold; ustar headers, with PAX records only for long names; sizes from 8 GiB up in
//! base-256; two zero blocks, then at most one record of zero padding, then nothing.
//!
//! Everything here is synchronous and uses up to three threads for one archive. Async callers run it
//! on a blocking thread.
#![forbid(unsafe_code)]

mod archive;
mod block;
mod build;
mod check;
mod chunk;
mod disk;
mod error;
mod feed;
mod hash;
mod header;
mod index;
mod init;
mod limits;
mod models;
mod path;
mod pax;
mod store;
mod tree;
mod walk;

pub use build::{Packed, build, build_with_progress, pack_folder};
pub use check::{Inspection, Summary, inspect, verify, verify_reader};
pub use chunk::{CHUNK_AVERAGE, CHUNK_MAX, CHUNK_MIN};
pub use error::{PackageError, Refused, UnpackError};
pub use index::{Chunk, Entry, EntryKind, Index};
pub use init::{Template, init};
pub use limits::Limits;
pub use path::PathProblem;
pub use store::{TakenAway, UnpackedPackage, lookup, remove, sweep, take_away, unpack};
pub use tree::LinkProblem;
