//! The relay: the one thing on a node that listens on the network.
//!
//! Gateways come to it by TLS 1.3, each with a certificate of the fleet's CA, and name an instance (SNI). The
//! relay connects to that instance on loopback, says so by one byte ([`berth_model::relay::Answer`]), and from
//! then on passes bytes on, both ways, whatever they are. Everybody else gets an alert or nothing.
//!
//! All that it knows is in one [`folder`] that the node's agent writes: whose relay it is, where to listen, its
//! certificate, who may come, and where the instances listen. It talks to nobody else, so that it goes on while
//! the agent is away, and begins with what is on the disk.
//!
//! # Who is let in
//!
//! A caller must show a certificate that the fleet's CA signed for clients, in the name of its role
//! (`NAME.gateway.berth.internal`), whose key is on the list of callers under that name. The list is what counts:
//! the dates in certificates are not looked at, because a node whose clock is wrong, or one that cannot reach its
//! coordinator for longer than a certificate's life, would turn the fleet's own gateways away. Who is taken off
//! the list loses its open connections at once.
#![forbid(unsafe_code)]

pub mod figures;
pub mod folder;
mod limits;
mod listen;
mod metrics;
mod run;
mod session;
mod splice;
mod state;
mod tls;
mod watch;

pub use run::{Config, ENDPOINT, MEETING, RunError, run};
pub use state::{State, key_hash};
