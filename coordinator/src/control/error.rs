//! Why control cannot start or go on.

use berth_store::StoreError;

/// Fatal: the process ends, and its supervisor starts it anew.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The store cannot be read.
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
    /// A record is not what this version understands.
    #[error(
        "the record {key} cannot be understood; run the version of Berth that wrote it, or restore a backup \
         with `berth-coordinator restore FILE`"
    )]
    Record {
        /// Its key in the store.
        key: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A record stands under another key than its content says.
    #[error(
        "the record {key} does not belong under that key; restore a backup with \
         `berth-coordinator restore FILE`"
    )]
    Misplaced {
        /// Its key in the store.
        key: String,
    },
    /// A service or a job needs a model version that is gone.
    #[error(
        "{what} runs the model version {key}, which is not in the store; \
         restore a backup with `berth-coordinator restore FILE`"
    )]
    MissingModel {
        /// The service's revision or the job.
        what: String,
        /// The missing record's key.
        key: String,
    },
    /// Another coordinator has begun a later term on the same store.
    #[error("another coordinator has taken over this store; this one ends")]
    TakenOver,
}
