//! The real shim, with real processes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod disk;
mod harness;
mod lifecycle;
mod output;
mod surroundings;
mod tree;
