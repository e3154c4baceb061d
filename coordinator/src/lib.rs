//! The coordinator: desired state, planning, registry, agents' sessions, admin API, logs; and the
//! gateway role's process around `berth-gateway`.
#![forbid(unsafe_code)]

pub mod api;
pub mod clusters;
pub mod config;
pub mod control;
pub mod disk;
pub mod edge;
pub mod gateway_role;
mod input;
mod leavings;
pub mod listen;
pub mod modules;
pub mod pki;
pub mod rpc;
pub mod run;

/// An error with all its causes, for logs.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
