//! What the admin API shows: pure functions of the world.

pub(crate) mod cluster;
pub(crate) mod gateway;
pub(crate) mod job;
pub(crate) mod model;
pub(crate) mod node;
pub(crate) mod pool;
pub(crate) mod reasons;
pub(crate) mod service;
pub(crate) mod status;
pub(crate) mod transport;

#[cfg(test)]
mod tests;
