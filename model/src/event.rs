//! Events: what happened, to what, and why.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// One thing that happened. Kept in order of `seq`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Number in the order of commits, from 1.
    pub seq: u64,
    /// When.
    pub time: Timestamp,
    /// How much it matters.
    pub level: Level,
    /// What kind of thing, as in `instance-restarted`; stable, for filters.
    pub kind: String,
    /// What it is about: `service/web`, `instance/web.1.0.1`, `node/n1`, …
    pub subject: String,
    /// A sentence for people.
    pub message: String,
}

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As planned.
    Info,
    /// Somebody may want to look.
    Warning,
    /// Something is broken.
    Error,
}
