//! Control under simulated agents, gateways, traffic, crashes and time.

mod agent;
mod crashes;
mod drains;
mod durable;
mod fleet;
mod fleets;
mod gateway;
mod jobs;
mod lifecycle;
mod removal;
mod sessions;
