//! Joining and renewal: certificates for nodes' keys. Neither needs a client certificate.

use std::sync::Arc;
use std::time::Duration;

use berth_model::problem::Problem;
use berth_proto::v1::enrollment_server::Enrollment;
use berth_proto::v1::{JoinReply, JoinRequest, RenewReply, RenewRequest};
use tonic::{Request, Response, Status};

use super::status;
use crate::control::{Command, Join, PodJoin};
use crate::edge::Edge;
use crate::pki::VerifiedCsr;

pub(super) struct Service(pub(super) Arc<Edge>);

impl Service {
    fn sign(&self, csr: &VerifiedCsr, name: &str) -> Result<String, Status> {
        let life = self.0.settings.node_certificate_life;
        match self.0.authority.sign_node(csr, name, life) {
            Ok(issued) => Ok(issued.chain_pem),
            Err(error) => {
                tracing::error!(error = crate::chain(&error), %name, "cannot sign a node's certificate");
                Err(Status::internal(error.to_string()))
            }
        }
    }
}

/// Two thirds of a certificate's life. Its dates do not say that: it counts as valid some time before it was made.
pub(super) fn renew_after_ms(life: Duration) -> u64 {
    u64::try_from((life * 2 / 3).as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn parse(csr: &[u8]) -> Result<VerifiedCsr, Status> {
    VerifiedCsr::parse(csr).map_err(|error| Status::invalid_argument(error.to_string()))
}

#[tonic::async_trait]
impl Enrollment for Service {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        let message = request.into_inner();
        let csr = parse(&message.csr)?;
        let join = Join {
            token_id: message.token_id,
            token_secret: message.token_secret,
            key_hash: csr.key_hash(),
            name: message.name,
            facts: message.facts.unwrap_or_default().into(),
            pod: message.pod.map(|pod| PodJoin {
                uid: pod.pod_uid,
                name: pod.pod_name,
                job_uid: pod.job_uid,
            }),
        };
        let joined = self
            .0
            .control
            .ask(|reply| Command::Join(Box::new(join), reply))
            .await
            .map_err(|problem| status(&problem))?;
        let name = joined.agent.label();
        let certificate = self.sign(&csr, &name)?;
        tracing::info!(agent = %joined.agent, "an agent joined");
        Ok(Response::new(JoinReply {
            name,
            certificate,
            ca: self.0.authority.pem().to_owned(),
            instance: joined.instance.map(Into::into),
            renew_after_ms: renew_after_ms(self.0.settings.node_certificate_life),
        }))
    }

    /// The request's signature by the pinned key is the proof, so that a certificate that has
    /// expired while the machine was off can be renewed, too.
    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        let csr = parse(&request.into_inner().csr)?;
        let key = csr.key_hash();
        let name = self
            .0
            .control
            .ask(|reply| Command::AgentByKey(key, reply))
            .await
            .map_err(|problem| status(&unknown_key(problem)))?;
        Ok(Response::new(RenewReply {
            certificate: self.sign(&csr, &name.label())?,
            ca: self.0.authority.pem().to_owned(),
            renew_after_ms: renew_after_ms(self.0.settings.node_certificate_life),
        }))
    }
}

fn unknown_key(problem: Problem) -> Problem {
    if problem.status != 404 {
        return problem;
    }
    Problem::new(
        403,
        "removed",
        "Not a node",
        "this key belongs to no node: the node was removed. To bring it back, join it anew",
    )
}
