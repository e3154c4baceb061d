//! What one node shall do next: pure planning for the agent.
//!
//! [`plan`] is given what the coordinator wants and what is so ([`Local`]), and tells what to do now,
//! what to report, and when time alone will change that. The agent executes the [`Action`]s and turns
//! what it learns into [`Local`]'s transitions. No clock, no I/O, no randomness: jitter is a function
//! of the instance and its start.
#![forbid(unsafe_code)]

mod local;
mod planner;
mod settings;
mod status;
mod task;

#[cfg(test)]
mod pods;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod scripts;
#[cfg(test)]
mod tasks;
#[cfg(test)]
mod testing;

pub use local::{Cause, Check, End, Local, Package, Run, Up};
pub use planner::{Action, Plan, plan};
pub use settings::Settings;
pub use status::{Status, refusal};
pub use task::{Input, Stage, Task};
