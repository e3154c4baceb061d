//! Errors of a gateway as a whole; what clients get is in `refusal`.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use berth_model::route::Order;

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The configured address.
        addr: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// A thread or its runtime cannot be started.
    #[error("cannot start a gateway thread: {0}")]
    Thread(#[source] io::Error),
    /// What it shall show to relays cannot be used.
    #[error("cannot use the identity for relays: {0}")]
    Identity(String),
    /// The certificate or key cannot be used.
    #[error("cannot use {}: {reason}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Why a table is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// A newer table is in force.
    #[error("route table {offered} is older than {current}, which is in force")]
    Older {
        /// The table that was offered.
        offered: Order,
        /// The table in force.
        current: Order,
    },
    /// The table in force has the same version and says something else.
    #[error("route table {0} differs from the one in force under the same version")]
    Conflict(Order),
}
