//! What each command changes. Functions on the [`World`](super::world::World) that check first and
//! change after, so that a refused command has changed nothing.

pub(crate) mod agents;
pub(crate) mod gateways;
pub(crate) mod joining;
pub(crate) mod models;
pub(crate) mod services;
pub(crate) mod statuses;
