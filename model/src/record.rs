//! Log lines as people and programs read them.

use serde::{Deserialize, Serialize};

use crate::id::InstanceId;

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// The process's standard output.
    Stdout,
    /// The process's standard error.
    Stderr,
    /// Berth's own words about the instance: gaps, starts, ends.
    Berth,
}

/// One line of an instance's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Nanoseconds since the Unix epoch, as the shim read the line.
    pub time_nanos: u64,
    /// The instance.
    pub instance: InstanceId,
    /// Number of the instance's start, from 1.
    pub start: u32,
    /// The named process.
    pub process: String,
    /// Which stream.
    pub stream: Stream,
    /// The line without its newline. Bytes that are not UTF-8 are shown as U+FFFD here; `raw` has them.
    pub text: String,
    /// The line's bytes in base64, only where they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
    /// The line goes on in the next record of the same process and stream.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// Lines that were dropped here because the disk budget was used up; 0 for an ordinary line.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gap_lines: u64,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_zero(n: &u64) -> bool {
    *n == 0
}
