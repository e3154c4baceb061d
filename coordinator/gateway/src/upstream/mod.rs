//! Connections to instances: made, used and kept by one thread.

mod connection;
mod io;
mod pool;

pub(crate) use connection::{Connection, Connector};
pub(crate) use pool::Pool;

/// Why an instance did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// No connection: nothing was sent.
    #[error("cannot connect: {0}")]
    Connect(#[source] std::io::Error),
    #[error("cannot connect within the connect timeout")]
    ConnectTimeout,
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
