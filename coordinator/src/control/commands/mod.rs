//! What each command changes. Functions on the [`World`](super::world::World) that check first and
//! change after, so that a refused command has changed nothing.

pub(crate) mod agents;
pub(crate) mod drains;
pub(crate) mod gateways;
pub(crate) mod jobs;
pub(crate) mod joining;
pub(crate) mod models;
pub(crate) mod nodes;
pub(crate) mod pools;
pub(crate) mod services;
pub(crate) mod statuses;
pub(crate) mod tasks;

use berth_model::problem::Problem;

/// Refuses what would not fit into the store's transactions beside other changes: one client's record
/// must never be the reason that a whole batch cannot be committed.
fn check_size<T: serde::Serialize>(what: &str, value: &T, limit: usize) -> Result<(), Problem> {
    let bytes = serde_json::to_vec(value)
        .map_err(|e| Problem::invalid(format!("{what} cannot be stored: {e}")))?
        .len();
    if bytes <= limit {
        return Ok(());
    }
    Err(Problem::invalid(format!(
        "{what} takes {bytes} bytes; at most {limit} can be kept"
    )))
}
