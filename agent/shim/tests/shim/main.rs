//! The real shim, with real processes.

mod disk;
mod harness;
mod lifecycle;
mod output;
mod surroundings;
mod tree;
