//! What the agent says to the coordinator, and how it gets through.

pub mod board;
pub mod connect;
pub mod machine;
pub mod session;
mod statistics;
