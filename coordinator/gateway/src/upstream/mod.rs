//! Connections to instances: made, used and kept by one thread.

mod connection;
mod io;
mod pool;
mod relays;

pub(crate) use connection::{Connection, Connector};
pub(crate) use pool::Pool;
pub use relays::RelayIdentity;
pub(crate) use relays::Relays;

/// Why an instance did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// No connection: nothing was sent.
    #[error("cannot connect: {0}")]
    Connect(#[source] std::io::Error),
    #[error("cannot connect within the connect timeout")]
    ConnectTimeout,
    /// No connection through the node's relay: nothing was sent.
    #[error("cannot connect through its relay: {0}")]
    Relay(String),
    /// The relay is not there just now, or ended while it was asked, as one that is started again: nothing was sent.
    #[error("its relay does not answer: {0}")]
    Away(String),
    /// Nothing to show to a relay yet: nothing was sent.
    #[error("this gateway has no certificate for relays yet; the coordinator gives it one")]
    NoIdentity,
    /// The connection ended, or spoke no HTTP, before a response's head had come.
    #[error("the connection failed before a response: {reason}")]
    Broken {
        reason: String,
        /// Whether the system took any byte of the request.
        sent: bool,
        /// Whether the connection had served another request before.
        kept: bool,
    },
}

impl Failure {
    /// Whether any byte of the request may have reached an instance.
    pub(crate) fn is_sent(&self) -> bool {
        matches!(self, Self::Broken { sent: true, .. })
    }
}
