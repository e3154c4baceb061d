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
    /// SHA-256 of the key that it shows to relays (SubjectPublicKeyInfo, DER), hexadecimal; empty if it never asked
    /// for a certificate.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// It was sent away: it follows no table, and no relay lets it in.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub revoked: bool,
    /// Since when its lease is over: stopping does not wait for it any more. It may serve all the same, out of the
    /// coordinator's reach, so that relays still let it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<Timestamp>,
}

/// What a gateway last said.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GatewayReport {
    /// Every request that starts from now on uses this table or a later one, and none uses an earlier.
    pub acknowledged: Order,
    /// Instances with requests in flight, and how many; the others have none.
    pub in_flight: Vec<(InstanceId, u64)>,
    /// It accepts no connections any more and ends when its requests are over.
    #[serde(default)]
    pub draining: bool,
}
