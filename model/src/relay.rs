//! Relays: who answers to which name, what a gateway needs to reach an instance through one, and the
//! word that a relay says first.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::id::{GatewayName, InstanceId, NodeName};

/// End of the names that relays answer to.
const RELAYS: &str = ".relay.berth.internal";

/// End of the names in gateways' certificates.
const GATEWAYS: &str = ".gateway.berth.internal";

/// The name in the certificate of a node's relay.
pub fn relay_name(node: &NodeName) -> String {
    format!("{node}{RELAYS}")
}

/// The name in a gateway's certificate: what makes it one of a gateway.
pub fn gateway_name(gateway: &str) -> String {
    format!("{gateway}{GATEWAYS}")
}

/// The name by which a gateway asks a relay for an instance (SNI).
pub fn instance_name(instance: &InstanceId, node: &NodeName) -> String {
    format!("{instance}.{node}{RELAYS}")
}

/// The instance and the node of a name by which a gateway asks; none if it is no such name.
pub fn parse_instance_name(name: &str) -> Option<(InstanceId, NodeName)> {
    let (instance, node) = name.strip_suffix(RELAYS)?.rsplit_once('.')?;
    Some((instance.parse().ok()?, node.parse().ok()?))
}

/// How predictions get from gateways to instances on nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// By relays, but on the coordinator's own machine, where gateways reach instances on loopback.
    #[default]
    Auto,
    /// By relays on every node.
    Relay,
    /// In the clear to the address of the node.
    Plain,
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Relay => "relay",
            Self::Plain => "plain",
        })
    }
}

impl std::str::FromStr for Transport {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "relay" => Ok(Self::Relay),
            "plain" => Ok(Self::Plain),
            other => Err(format!(
                "{other:?} is not a transport: use auto, relay or plain"
            )),
        }
    }
}

/// A node's relay, as its agent tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayFacts {
    /// Where gateways dial it.
    pub address: SocketAddr,
    /// SHA-256 of its public key (SubjectPublicKeyInfo, DER), hexadecimal.
    pub key: String,
}

/// What a node's relay has done since its process began, and what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RelayStatistics {
    /// Callers' connections that are open.
    pub open: u64,
    /// Connections that came, whosever they were.
    pub accepted: u64,
    /// Those that were turned away: strangers, and callers that are not on the list.
    pub refused: u64,
    /// Those that found no place, because too many handshakes were under way.
    pub crowded_out: u64,
    /// Handshakes that resumed a session.
    pub resumed: u64,
    /// Callers that asked for what is not there, or does not answer.
    pub not_connected: u64,
    /// Connections passed on to instances.
    pub passed_on: u64,
    /// Those cut off: the caller or the instance was taken from the table.
    pub cut_off: u64,
    /// Bytes to instances.
    pub to_instances_bytes: u64,
    /// Bytes from instances.
    pub from_instances_bytes: u64,
}

/// How a gateway reaches one instance through its node's relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relayed {
    /// Where the relay listens.
    pub address: SocketAddr,
    /// Whose relay it is.
    pub node: NodeName,
    /// SHA-256 of the relay's public key, hexadecimal: no other key will do.
    pub key: String,
    /// Where the instance listens on its node; `host` of requests to it.
    pub local: SocketAddr,
}

/// One that may come to relays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// What it is.
    pub role: Role,
    /// Its name.
    pub name: GatewayName,
    /// SHA-256 of its public key, hexadecimal.
    pub key: String,
}

/// What may come to relays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A gateway.
    Gateway,
    /// Something that a newer version knows; never let in.
    #[serde(other)]
    Unknown,
}

impl Caller {
    /// The name that its certificate must have; none if nobody of its role is let in.
    pub fn certified_name(&self) -> Option<String> {
        match self.role {
            Role::Gateway => Some(gateway_name(self.name.as_str())),
            Role::Unknown => None,
        }
    }
}

/// The byte that a relay sends to a gateway that it lets in, before anything else: nothing that the gateway
/// sends earlier could reach the instance, so that a request is sent only after [`Answer::Connected`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The instance has accepted a connection; from here on all bytes are its own.
    Connected,
    /// The node has no such instance.
    NoInstance,
    /// The instance does not accept connections.
    Refused,
    /// The relay has as many connections as it takes.
    Busy,
}

impl Answer {
    /// The byte.
    pub fn byte(self) -> u8 {
        match self {
            Self::Connected => 0,
            Self::NoInstance => 1,
            Self::Refused => 2,
            Self::Busy => 3,
        }
    }

    /// The byte's meaning; none if it has none.
    pub fn of(byte: u8) -> Option<Self> {
        let all = [Self::Connected, Self::NoInstance, Self::Refused, Self::Busy];
        all.into_iter().find(|answer| answer.byte() == byte)
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connected => "connected",
            Self::NoInstance => "the relay knows no such instance on its node",
            Self::Refused => "the instance does not accept the relay's connection",
            Self::Busy => "the relay has as many connections as it takes",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_instance_and_node() {
        let instance: InstanceId = "web.3.0.12".parse().unwrap();
        let node: NodeName = "rack-1-n7".parse().unwrap();
        let name = instance_name(&instance, &node);
        assert_eq!(name, "web.3.0.12.rack-1-n7.relay.berth.internal");
        assert!(name.ends_with(&relay_name(&node)));
        assert_eq!(parse_instance_name(&name), Some((instance, node)));
        for bad in [
            "",
            "relay.berth.internal",
            ".relay.berth.internal",
            "n1.relay.berth.internal",
            "web.1.0.n1.relay.berth.internal",
            "web.1.0.1.relay.berth.internal",
            "web.1.0.1.n1.relay.berth.internal.example",
            "a.web.1.0.1.n1.relay.berth.internal",
            "web.1.0.1.N1.relay.berth.internal",
        ] {
            assert_eq!(parse_instance_name(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_longest_names_fit_into_a_dns_name() {
        let label = "a".repeat(crate::id::MAX_NAME);
        let most = u32::MAX;
        let instance = format!("{label}.{most}.{most}.{most}").parse().unwrap();
        let name = instance_name(&instance, &label.parse().unwrap());
        assert!(name.len() <= 253, "{} bytes", name.len());
    }

    #[test]
    fn answers_are_their_bytes() {
        for byte in 0..=3 {
            assert_eq!(Answer::of(byte).map(Answer::byte), Some(byte));
        }
        assert_eq!(Answer::of(b'H'), None);
    }

    #[test]
    fn a_role_that_is_not_known_is_let_in_nowhere() {
        let text = r#"{"role":"peer","name":"n1","key":"00"}"#;
        let caller: Caller = serde_json::from_str(text).unwrap();
        assert_eq!(
            (caller.role, caller.certified_name()),
            (Role::Unknown, None)
        );
        let text = text.replace("peer", "gateway");
        let caller: Caller = serde_json::from_str(&text).unwrap();
        assert_eq!(
            caller.certified_name().as_deref(),
            Some("n1.gateway.berth.internal")
        );
    }
}
