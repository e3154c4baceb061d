//! Planning for the whole fleet: pure functions from what is wanted and what is seen to what to do.
//!
//! No clock, no I/O, no randomness, no unordered map: the same input gives the same plan.
#![forbid(unsafe_code)]

mod input;
mod output;

pub use input::{Desired, GatewaySeen, InstanceSeen, Needs, NodeSeen, Observed, Session, Settings};
pub use output::{Action, Plan, WaitReason, Waiting};
