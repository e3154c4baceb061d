//! The coordinator's durable copy of every instance's log.
//!
//! Each (instance, start, boot) is one stream of frames (format: `berth-logfile`), kept as the very bytes
//! that its shim wrote, under `SERVICE/INSTANCE/START-BOOT/`. Bytes are taken at a stream's own length only
//! and acknowledged once they are on disk, so that nothing is lost or doubled however often a node ships
//! them. Reading merges the streams of a service or an instance in the order of time.
#![forbid(unsafe_code)]

mod disk;
mod error;
mod index;
mod key;
mod line;
mod lines;
mod merge;
mod names;
mod place;
mod query;
mod retention;
mod source;
mod store;
mod tail;
mod writer;

#[cfg(test)]
mod tests;

pub use error::LogsError;
pub use key::{BootId, KeyError, StreamKey};
pub use lines::Lines;
pub use query::{Cursor, CursorError, Query, Scope};
pub use retention::{Retention, Swept};
pub use store::{Counters, LogStore};
