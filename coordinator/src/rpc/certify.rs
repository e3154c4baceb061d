//! Certificates for the keys with which relays and gateways meet.

use std::sync::Arc;
use std::time::Duration;

use berth_model::id::GatewayName;
use berth_proto::v1::{Certified, CertifyRelayRequest};
use tonic::Status;

use super::enrollment::{parse, renew_after_ms};
use super::status;
use crate::control::{AgentName, Command, ConnectionId};
use crate::edge::Edge;
use crate::pki::{IssuedCertificate, PkiError};

/// For a node's relay: the node's session key has shown who asks.
pub(super) fn relay(
    edge: &Arc<Edge>,
    agent: &AgentName,
    request: &CertifyRelayRequest,
) -> Result<Certified, Status> {
    let AgentName::Node(node) = agent else {
        return Err(Status::permission_denied("a Pod has no relay"));
    };
    let csr = parse(&request.csr)?;
    let life = edge.settings.node_certificate_life;
    certified(edge, edge.authority.sign_relay(&csr, node, life), life)
}

/// For a gateway whose stream this is. Its key is committed first, so that no relay turns it away once it has the
/// certificate.
pub(super) async fn gateway(
    edge: &Arc<Edge>,
    connection: ConnectionId,
    name: &GatewayName,
    csr: &[u8],
) -> Result<Certified, Status> {
    let csr = parse(csr)?;
    let key = csr.key_hash();
    edge.control
        .ask(|reply| Command::GatewayKey(connection, key, reply))
        .await
        .map_err(|problem| status(&problem))?;
    let life = edge.settings.node_certificate_life;
    certified(edge, edge.authority.sign_gateway(&csr, name, life), life)
}

fn certified(
    edge: &Edge,
    issued: Result<IssuedCertificate, PkiError>,
    life: Duration,
) -> Result<Certified, Status> {
    let issued = issued.map_err(|error| {
        tracing::error!(error = crate::chain(&error), "cannot sign a certificate");
        Status::internal(error.to_string())
    })?;
    Ok(Certified {
        certificate: issued.pem,
        ca: edge.authority.pem().to_owned(),
        renew_after_ms: renew_after_ms(life),
    })
}
