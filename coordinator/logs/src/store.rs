//! The store: opening, appending, deleting.

use std::path::Path;
use std::time::Duration;

use berth_model::id::ServiceName;
use bytes::Bytes;

use crate::{Cursor, Lines, LogsError, Query, StreamKey};

/// How long and how much is kept. Whole old segments go, never a line out of the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Segments that were last written to longer ago go.
    pub max_age: Duration,
    /// Most bytes of all services: the oldest segments go first.
    pub max_bytes: u64,
    /// Most bytes of one service.
    pub per_service_bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(7 * 24 * 3600),
            max_bytes: 10 << 30,
            per_service_bytes: 1 << 30,
        }
    }
}

/// What a sweep took away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Segments.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What the store has done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Lines taken.
    pub lines: u64,
    /// Bytes of frames taken.
    pub bytes: u64,
    /// Lines that nodes had to drop, by their own count.
    pub gap_lines: u64,
    /// Batches taken or known already.
    pub batches: u64,
    /// Times that files were synced.
    pub syncs: u64,
}

/// The log store. Cheap to clone; the last clone dropped ends its writer.
#[derive(Debug, Clone)]
pub struct LogStore {}

impl LogStore {
    /// Opens a folder, made if need be, and starts the writer's thread. Blocks shortly.
    pub fn open(dir: &Path, retention: Retention) -> Result<Self, LogsError> {
        unimplemented!("{dir:?} {retention:?}")
    }

    /// Length in bytes of what is safely here of a stream; 0 for one never seen.
    pub async fn durable(&self, _stream: &StreamKey) -> Result<u64, LogsError> {
        unimplemented!()
    }

    /// Takes whole frames at an offset of a stream, and answers with the durable length once they are
    /// on disk. What is here already is passed over. Errors: [`LogsError::WrongOffset`] if bytes between
    /// are missing, [`LogsError::BadFrames`].
    pub async fn append(
        &self,
        _stream: &StreamKey,
        _offset: u64,
        _frames: Bytes,
    ) -> Result<u64, LogsError> {
        unimplemented!()
    }

    /// Goes on at a later offset of a stream, where its node has the bytes between no more (they were
    /// acknowledged, and then lost here, as after a restore). Readers are told. Answers with the durable length.
    pub async fn skip_to(&self, _stream: &StreamKey, _offset: u64) -> Result<u64, LogsError> {
        unimplemented!()
    }

    /// The lines there are now, in the order of time; each stream's own order is kept.
    pub fn read(&self, _query: Query) -> Lines {
        unimplemented!()
    }

    /// The lines there are, then those that come, until [`Lines`] is dropped: none twice, none left out.
    /// With a cursor, only what follows it. Must be called within a runtime.
    pub fn follow(&self, _query: Query, _from: Option<Cursor>) -> Lines {
        unimplemented!()
    }

    /// Deletes all logs of a service.
    pub async fn delete_service(&self, _service: &ServiceName) -> Result<(), LogsError> {
        unimplemented!()
    }

    /// Takes away what is beyond the retention. To be called now and then.
    pub async fn sweep(&self) -> Result<Swept, LogsError> {
        unimplemented!()
    }

    /// Figures for the metrics.
    pub fn counters(&self) -> Counters {
        unimplemented!()
    }
}
