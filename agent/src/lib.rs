//! The agent: keeps one node at what the coordinator wants.
//!
//! One task ([`reconcile`]) owns all that is so of the node's instances; it plans with
//! `berth-agent-plan` and executes. Around it: the session with the coordinator ([`rpc`]), the shipping of
//! logs ([`logs`]), health checks ([`health`]) the fetching of packages ([`packages`]), which tell it
//! what they learn. Nothing in it needs the coordinator to be there.
#![forbid(unsafe_code)]

mod availability;
pub mod backoff;
pub mod clock;
pub mod config;
pub mod data;
mod disk;
pub mod facts;
pub mod files;
pub mod health;
pub mod identity;
pub mod ledger;
mod limit;
pub mod logs;
pub mod modules;
pub mod packages;
pub mod pod;
pub mod ports;
pub mod reconcile;
pub mod relay;
pub mod rpc;
pub mod run;
pub mod runtime;
pub mod stop;
mod supervised;
pub mod tasks;
pub mod tools;

#[cfg(test)]
mod testing;

/// An error with all its causes, in one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        // Many errors already say what their source says.
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = cause.source();
    }
    text
}
