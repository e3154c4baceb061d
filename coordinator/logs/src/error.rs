//! What can go wrong with the log store.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_logfile::{LogError, MirrorError};

use crate::StreamKey;

/// Why the log store did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// The bytes begin behind the stream's end: ship from `durable` on.
    #[error("bytes of offset {offset} were sent to {stream}, which stands at {durable}")]
    WrongOffset {
        /// The stream.
        stream: Box<StreamKey>,
        /// The offset that was sent.
        offset: u64,
        /// The stream's durable length: what to acknowledge.
        durable: u64,
    },
    /// The bytes are not whole, valid frames; none were taken.
    #[error("what was sent to {stream} is no valid frame at offset {offset}")]
    BadFrames {
        /// The stream.
        stream: Box<StreamKey>,
        /// Offset in the stream of what is no frame.
        offset: u64,
        /// The stream's durable length: what to acknowledge.
        durable: u64,
    },
    /// The log's files cannot be used. Nothing of the batch is acknowledged; it may be sent again.
    #[error("cannot keep the log")]
    Log(#[source] Arc<LogError>),
    /// The system refused.
    #[error("cannot {what} {path:?}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A failure beside it leaves it unsure whether the batch is on disk; it may be sent again.
    #[error("another write to the same log failed: send it again")]
    Unsure,
    /// The store's writer is gone; the process must end and start anew.
    #[error("the log store has stopped")]
    Stopped,
}

impl LogsError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            what,
            path: path.to_owned(),
            source,
        }
    }
}

impl From<LogError> for LogsError {
    fn from(error: LogError) -> Self {
        Self::Log(Arc::new(error))
    }
}

impl LogsError {
    /// What a mirror's refusal means for a stream of that durable length.
    pub(crate) fn of_mirror(error: MirrorError, stream: &StreamKey, durable: u64) -> Self {
        let stream = Box::new(stream.clone());
        match error {
            MirrorError::WrongOffset { offset, .. } => Self::WrongOffset {
                stream,
                offset,
                durable,
            },
            MirrorError::BadFrame { offset } => Self::BadFrames {
                stream,
                offset,
                durable,
            },
            MirrorError::Log(error) => error.into(),
        }
    }
}
