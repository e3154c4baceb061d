//! The formats by which an agent and its shims understand each other, and the identity of processes.
//!
//! The shim itself is the binary of this crate. An agent writes `spec.json` into a start folder and
//! runs `berth-shim run --dir DIR`; the shim writes `state.json` and log segments there. Both
//! formats are versioned, so that a newer agent adopts what an older one started.
#![forbid(unsafe_code)]

pub mod cgroup;
mod document;
pub mod identity;
pub mod sandbox;
pub mod spec;
pub mod state;

pub use document::DocumentError;
