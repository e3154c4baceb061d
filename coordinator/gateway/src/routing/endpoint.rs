//! How an instance is reached.

use std::net::SocketAddr;
use std::sync::Arc;

use berth_model::id::InstanceId;
use berth_model::relay::{Relayed, instance_name};
use rustls_pki_types::ServerName;

/// How an instance is reached.
#[derive(Debug, Clone)]
pub(crate) enum Endpoint {
    /// At its own address, in the clear.
    Direct(SocketAddr),
    /// Through its node's relay.
    Relay(Arc<Via>),
}

/// The way through a relay.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Via {
    pub(crate) relayed: Relayed,
    /// The instance, as the relay is asked for it.
    pub(crate) name: ServerName<'static>,
}

impl Endpoint {
    /// Through a relay; none if the names do not fit, which names of instances and nodes always do.
    pub(super) fn relay(id: &InstanceId, relayed: &Relayed) -> Option<Self> {
        let name = instance_name(id, &relayed.node);
        Some(Self::Relay(Arc::new(Via {
            relayed: relayed.clone(),
            name: ServerName::try_from(name).ok()?,
        })))
    }

    /// Where the instance itself listens.
    pub(super) fn local(&self) -> SocketAddr {
        match self {
            Self::Direct(address) => *address,
            Self::Relay(via) => via.relayed.local,
        }
    }
}

/// Compared for every kept connection: usually it is the very same.
impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Direct(a), Self::Direct(b)) => a == b,
            (Self::Relay(a), Self::Relay(b)) => Arc::ptr_eq(a, b) || a == b,
            _ => false,
        }
    }
}
