//! The coordinator's durable copy of every instance's log.
//!
//! Each (instance, start, boot) is one stream of frames (format: `berth-logfile`), kept as the very bytes
//! that its shim wrote, under `SERVICE/INSTANCE/START-BOOT/`. Bytes are taken at a stream's own length only
//! and acknowledged once they are on disk, so that nothing is lost or doubled however often a node ships
//! them. Reading merges the streams of a service or an instance in the order of time.
#![forbid(unsafe_code)]

mod error;
mod key;
mod query;
mod store;

pub use error::LogsError;
pub use key::{BootId, KeyError, StreamKey};
pub use query::{Cursor, CursorError, Lines, Query, Scope};
pub use store::{Counters, LogStore, Retention, Swept};
