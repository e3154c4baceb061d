//! What control keeps and knows of gateways.

use serde::{Deserialize, Serialize};

use crate::id::{GatewayName, InstanceId};
use crate::route::Order;
use crate::time::Timestamp;

/// What the store keeps of a gateway, so that a restarted coordinator still waits for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayRecord {
    /// Its name, unique in a fleet.
    pub name: GatewayName,
    /// The URL at which clients reach it, as in `http://127.0.0.1:7480`.
    pub url: String,
    /// When it first connected.
    pub registered: Timestamp,
}

/// What a gateway last said.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GatewayReport {
    /// Every request that starts from now on uses this table or a later one, and none uses an earlier.
    pub acknowledged: Order,
    /// Instances with requests in flight, and how many; the others have none.
    pub in_flight: Vec<(InstanceId, u64)>,
}
