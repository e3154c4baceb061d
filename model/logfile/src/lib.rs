//! Log segments: the files in which every line of an instance travels from its shim to the coordinator.
//!
//! The log of one (instance, start, boot) is one stream of [`Frame`]s, cut into segment files that are
//! named by the byte offset at which they begin. The shim writes them ([`SegmentWriter`]), the agent
//! ships whole frames from an acknowledged offset ([`TailReader`]), and the coordinator keeps the very
//! same bytes ([`Mirror`]), taking bytes only at its own current length. So an offset means the same
//! everywhere, and no line can be lost or doubled between the three.
//!
//! Synchronous, and nothing but the standard library: the shim must stay tiny.
#![forbid(unsafe_code)]

mod error;
mod frame;
mod mirror;
mod segment;
mod tail;
mod writer;

#[cfg(test)]
mod properties;

pub use error::LogError;
pub use frame::{
    Frame, FrameError, Frames, GAP, Gap, HEADER_LEN, MAX_LINE, MAX_PAYLOAD, PARTIAL, PROCESS_NAME,
    Stream,
};
pub use mirror::{Mirror, MirrorError, append_at};
pub use segment::{Recovered, Segment, recover, segments};
pub use tail::{Tail, TailReader};
pub use writer::{Lost, Refused, SegmentWriter, WriterLimits};
