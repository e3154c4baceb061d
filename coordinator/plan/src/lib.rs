//! Planning for the whole fleet: pure functions from what is wanted and what is seen to what to do.
//!
//! No clock, no I/O, no randomness, no unordered map: the same input gives the same plan. The parts,
//! in the order in which [`plan`] runs them over one working view:
//!
//! 1. `nodes`: leases, the mass-loss brake, fencing of what ran on lost nodes, silent gateways;
//! 2. `clusters`: replacing of what ended by itself in a cluster; holding while one is out of reach;
//! 3. `stopping`: ordered stopping of what drains, forgetting of what has stopped;
//! 4. `rollout`: how many instances each revision of a service shall have now;
//! 5. `fill`: draining what is too much, placing what is missing (`place`);
//! 6. `jobs`: the next attempts of tasks, the end of what is not wanted any more.
#![forbid(unsafe_code)]

mod clusters;
mod fill;
mod input;
mod jobs;
mod nodes;
mod output;
mod place;
mod rollout;
mod stopping;
mod view;
mod wording;

#[cfg(test)]
mod fleet;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod work;

pub use input::{
    ClusterSeen, Desired, GatewaySeen, InstanceSeen, JobWanted, Needs, NodeSeen, Observed, Session,
    Settings,
};
pub use output::{Action, Plan, WaitReason, Waiting};

use berth_model::time::Monotonic;

/// What to do now so that what is seen becomes what is wanted. `now` is on the same clock as the
/// times in `observed`.
pub fn plan(desired: &Desired, observed: &Observed, now: Monotonic) -> Plan {
    let mut view = view::View::new(desired, observed, now);
    if observed.settling {
        for service in desired.services.keys() {
            view.wait(service, WaitReason::Settling);
        }
        for job in desired.jobs.keys() {
            view.wait(&job.into(), WaitReason::Settling);
        }
        return view.plan;
    }
    nodes::plan(&mut view);
    clusters::plan(&mut view);
    stopping::plan(&mut view);
    for service in desired.services.values() {
        let targets = rollout::targets(&mut view, service);
        fill::plan(&mut view, service, &targets);
    }
    jobs::plan(&mut view);
    fill::drain_unwanted(&mut view);
    view.plan
}
