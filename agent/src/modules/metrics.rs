//! Collecting what a module says of itself for Prometheus.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use berth_model::id::InstanceId;

use super::tf_serving::METRICS_PATH;
use crate::health::fetch;
use crate::rpc::board::Board;

/// How often it is asked.
const EVERY: Duration = Duration::from_secs(10);

/// How often until it has answered once: it is asked from its start on.
const FIRST: Duration = Duration::from_secs(1);

/// How long it may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The longest text that is taken: a server of one model says some tens of kilobytes.
pub const MOST: usize = 512 * 1024;

/// Asks until dropped, and puts what it says on the board. What is not there, too long or no text is left out.
pub async fn scrape(address: SocketAddr, id: InstanceId, board: Arc<Board>) {
    let mut wait = FIRST;
    loop {
        match fetch(address, METRICS_PATH, MOST, TIMEOUT).await {
            Ok((status, body)) if status.is_success() && !body.is_empty() => {
                wait = EVERY;
                match String::from_utf8(body.to_vec()) {
                    Ok(text) => board.metrics(&id, text),
                    Err(_) => tracing::debug!(instance = %id, "its metrics are no text"),
                }
            }
            Ok((status, _)) => tracing::debug!(instance = %id, %status, "no metrics"),
            Err(problem) => tracing::debug!(instance = %id, problem, "no metrics"),
        }
        tokio::time::sleep(wait).await;
    }
}
