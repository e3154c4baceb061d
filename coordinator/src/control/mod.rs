//! The control actor: the one owner of the fleet's state.
//!
//! One task holds all records in memory, mirrored in the store, and what is live beside them. Each turn
//! it drains its mailbox into a draft (the records with their changed keys), plans on that draft until
//! nothing is left to do, commits everything at once, and only then answers and applies: desired sets to
//! agents, a route table to gateways, events to whoever listens. A commit that fails leaves the world as
//! the store has it, and whoever waited for it is told.
//!
//! * `records`, `tracked`, `indexes`, `batch`: what is kept, what has changed, how it is found and becomes transactions;
//! * `live`: sessions, reports, and other things that begin anew with each start;
//! * `commands`: what each command changes; `dispatch`: how it is answered;
//! * `fleets`: what fleet files declare, planned and carried out as one command;
//! * `observe`, `feed`, `act`: what the planner is told, and what its actions change;
//! * `pending`, `routes`, `publish`: what gateways and agents are told;
//! * `views`: what people are shown.

mod act;
mod actor;
mod agent;
mod batch;
mod callers;
mod challenge;
mod clock;
mod clusters;
mod commands;
mod dispatch;
mod error;
mod events;
mod feed;
mod fleets;
mod handle;
mod indexes;
mod live;
mod metrics;
mod modelref;
mod observe;
mod pending;
mod publish;
mod records;
mod routes;
mod start;
mod tracked;
mod views;
mod world;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod testing;

pub use agent::AgentName;
pub use clock::{Clock, SystemClock};
pub use clusters::{
    ClusterInfo, Counted, Orders, PodReport, Reach, WorkName, WorkNews, WorkOrder, WorkReport,
};
pub use error::ControlError;
pub use handle::*;
pub use metrics::Metrics;
pub use start::{Config, start};
#[cfg(all(test, feature = "kubernetes"))]
pub(crate) use testing::manifest as testing_manifest;
