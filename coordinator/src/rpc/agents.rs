//! The service that nodes use, all of it by their certificates.

use std::sync::Arc;

use berth_proto::v1::agents_server::Agents;
use berth_proto::v1::{
    AgentMessage, BlobChunk, Certified, CertifyRelayRequest, CoordinatorMessage, FetchBlobRequest,
    LogAck, LogBatch, OutputChunk, OutputReply,
};
use tonic::{Request, Response, Status, Streaming};

use super::{Streamed, agent_of, archive, certify, output, session, ship, status};
use crate::edge::Edge;

pub(super) struct Service(pub(super) Arc<Edge>);

#[tonic::async_trait]
impl Agents for Service {
    type SessionStream = Streamed<CoordinatorMessage>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        session::open(&self.0, request).await
    }

    type FetchBlobStream = Streamed<BlobChunk>;

    async fn fetch_blob(
        &self,
        request: Request<FetchBlobRequest>,
    ) -> Result<Response<Self::FetchBlobStream>, Status> {
        agent_of(&self.0, &request)
            .await
            .map_err(|problem| status(&problem))?;
        archive::fetch(&self.0, request.into_inner()).await
    }

    type ShipLogsStream = Streamed<LogAck>;

    async fn ship_logs(
        &self,
        request: Request<Streaming<LogBatch>>,
    ) -> Result<Response<Self::ShipLogsStream>, Status> {
        let agent = agent_of(&self.0, &request)
            .await
            .map_err(|problem| status(&problem))?;
        Ok(ship::open(&self.0, agent, request.into_inner()))
    }

    async fn put_output(
        &self,
        request: Request<Streaming<OutputChunk>>,
    ) -> Result<Response<OutputReply>, Status> {
        let agent = agent_of(&self.0, &request)
            .await
            .map_err(|problem| status(&problem))?;
        output::take(&self.0, agent, request.into_inner()).await
    }

    async fn certify_relay(
        &self,
        request: Request<CertifyRelayRequest>,
    ) -> Result<Response<Certified>, Status> {
        let agent = agent_of(&self.0, &request)
            .await
            .map_err(|problem| status(&problem))?;
        certify::relay(&self.0, &agent, request.get_ref()).map(Response::new)
    }
}
