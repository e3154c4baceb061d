//! Planning for the whole fleet: pure functions from what is wanted and what is seen to what to do.
//!
//! No clock, no I/O, no randomness, no unordered map: the same input gives the same plan. The parts,
//! in the order in which a [`Planner`] runs them over one working view:
//!
//! 1. `nodes`: leases, the mass-loss brake, fencing of what ran on lost nodes, silent gateways;
//! 2. `clusters`: replacing of what ended by itself in a cluster; holding while one is out of reach;
//! 3. `stopping`: ordered stopping of what drains, forgetting of what has stopped;
//! 4. `rollout`: how many instances each revision of a service shall have now;
//! 5. `fill`: draining what is too much, placing what is missing (`place`);
//! 6. `vacate`: emptying the nodes that are drained;
//! 7. `jobs`: the next attempts of tasks, the end of what is not wanted any more.
//!
//! Placement is in `place`: `reject` says why a node will not do, `machines` and `layout` keep the nodes in
//! the order in which they are wanted, `chooser` finds the best one.
#![forbid(unsafe_code)]

mod chooser;
mod clusters;
mod fill;
mod input;
mod jobs;
mod layout;
mod machines;
mod nodes;
mod output;
mod place;
mod planner;
mod reject;
mod rollout;
mod state;
mod stopping;
mod vacate;
mod view;
mod wording;

#[cfg(test)]
mod fleet;
#[cfg(test)]
mod moving;
#[cfg(test)]
mod placing;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vacating;
#[cfg(test)]
mod work;

pub use input::{
    ClusterSeen, Desired, DrainSeen, GatewaySeen, InstanceSeen, JobWanted, MAX_SPREAD, Needs,
    NodeSeen, Observed, Session, Settings,
};
pub use output::{Action, Plan, WaitReason, Waiting};
pub use planner::{Change, Planner};
pub use reject::Rejection;

use berth_model::time::Monotonic;

/// What to do now so that what is seen becomes what is wanted, looking at everything. `now` is on the same
/// clock as the times in `observed`. A [`Planner`] that is told of changes says the same with less work.
pub fn plan(desired: &Desired, observed: &Observed, now: Monotonic) -> Plan {
    Planner::of(desired, observed).plan(now)
}
