//! The real agent and shim against a coordinator of the tests' own, over real TLS.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests, and a module that writes lines"
)]

mod adopt;
mod coordinator;
mod disk;
#[cfg(feature = "docker")]
mod docker;
mod ends;
mod enrol;
mod lifecycle;
mod module;
mod modules;
mod node;
mod pod;
mod recorded;
mod ship;
mod tasks;
mod wait;
