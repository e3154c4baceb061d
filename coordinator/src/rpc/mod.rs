//! gRPC: enrolment, agents' sessions, archives and logs, and the route table. Wire types end here.

mod agents;
mod archive;
mod certify;
mod enrollment;
mod output;
mod routes;
mod session;
mod ship;

use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use berth_model::problem::Problem;
use berth_proto::v1::agents_server::AgentsServer;
use berth_proto::v1::enrollment_server::EnrollmentServer;
use berth_proto::v1::routes_server::RoutesServer;
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::server::NamedService;
use tonic::{Code, Request, Response, Status};

use crate::control::{AgentName, Command};
use crate::edge::Edge;
use crate::listen::Peer;

/// Longest message from an agent or a gateway.
const MAX_MESSAGE: usize = 16 << 20;
/// Messages that may wait for a slow peer.
const WAITING: usize = 16;

/// What a streaming call answers with.
type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
/// Where a streaming call's task puts its answers.
type Outbound<T> = mpsc::Sender<Result<T, Status>>;

/// The routes of all gRPC services.
pub fn router(edge: &Arc<Edge>) -> Router {
    let enrollment = EnrollmentServer::new(enrollment::Service(Arc::clone(edge)))
        .max_decoding_message_size(MAX_MESSAGE);
    let agents =
        AgentsServer::new(agents::Service(Arc::clone(edge))).max_decoding_message_size(MAX_MESSAGE);
    let routes =
        RoutesServer::new(routes::Service(Arc::clone(edge))).max_decoding_message_size(MAX_MESSAGE);
    Router::new()
        .route_service(&path::<EnrollmentServer<enrollment::Service>>(), enrollment)
        .route_service(&path::<AgentsServer<agents::Service>>(), agents)
        .route_service(&path::<RoutesServer<routes::Service>>(), routes)
}

fn path<S: NamedService>() -> String {
    format!("/{}/{{*method}}", S::NAME)
}

/// A channel for a task's answers, and the call's answer made of it.
fn answers<T: Send + 'static>() -> (Outbound<T>, Response<Streamed<T>>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let stream: Streamed<T> = Box::pin(ReceiverStream::new(receiver));
    (sender, Response::new(stream))
}

/// The agent whose certificate the peer has shown.
async fn agent_of<T>(edge: &Edge, request: &Request<T>) -> Result<AgentName, Problem> {
    let key = request
        .extensions()
        .get::<Peer>()
        .and_then(|peer| peer.key_hash.clone())
        .ok_or_else(|| {
            Problem::unauthorized("show the node's certificate; `berth-agent join` gets one")
        })?;
    edge.control
        .ask(|reply| Command::AgentByKey(key, reply))
        .await
        .map_err(|problem| match problem.status {
            404 => Problem::new(
                403,
                "removed",
                "Not a node",
                "this machine's key belongs to no node: the node was removed. To bring it back, \
                 join it anew with `berth-agent join`",
            ),
            _ => problem,
        })
}

fn status(problem: &Problem) -> Status {
    let message = problem.detail.clone();
    match problem.status {
        400 | 422 => Status::invalid_argument(message),
        401 => Status::unauthenticated(message),
        403 => Status::permission_denied(message),
        404 => Status::not_found(message),
        409 => Status::failed_precondition(message),
        503 => Status::unavailable(message),
        _ => Status::internal(message),
    }
}

/// Whether a stream ended because the other side closed it or its connection, which is nothing to warn
/// of: nodes and gateways are watched by their leases. A status that this side made has no source.
fn peer_has_gone(status: &Status) -> bool {
    status.code() == Code::Cancelled || std::error::Error::source(status).is_some()
}

/// The stable code at the end of a problem's type.
fn code(problem: &Problem) -> &str {
    problem.kind.rsplit(':').next().unwrap_or("internal")
}
