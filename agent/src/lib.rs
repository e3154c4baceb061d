//! The agent: keeps one node at what the coordinator wants.
#![forbid(unsafe_code)]

pub mod runtime;
