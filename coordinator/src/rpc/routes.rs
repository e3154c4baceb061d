//! The route table for gateways, and what they report.

use std::sync::Arc;
use std::time::Duration;

use berth_model::id::GatewayName;
use berth_model::route::{Order, Table};
use berth_proto::v1::routes_server::Routes;
use berth_proto::v1::{GatewayMessage, GatewayReport, RouteMessage};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{Outbound, Streamed, answers, certify, peer_has_gone, status};
use crate::control::{Command, ConnectionId, GatewayOpened, Handle};
use crate::edge::{Counted, Edge};
use crate::pki::Role;

/// Longest time for a gateway to say hello.
const HELLO: Duration = Duration::from_secs(10);
/// A gateway reports each second; after this long without a word the connection is dead.
const SILENCE: Duration = Duration::from_secs(10);

pub(super) struct Service(pub(super) Arc<Edge>);

#[tonic::async_trait]
impl Routes for Service {
    type FollowStream = Streamed<RouteMessage>;

    async fn follow(
        &self,
        request: Request<Streaming<GatewayMessage>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        authorise(&self.0, &request)?;
        let (outbound, response) = answers();
        let edge = Arc::clone(&self.0);
        tokio::spawn(async move {
            let _counted = Counted::new(&edge.figures.followers);
            let Err(status) = follow(&edge, request.into_inner(), &outbound).await else {
                tracing::info!("a gateway's stream ended");
                return;
            };
            if edge.shutdown.is_cancelled() || peer_has_gone(&status) {
                tracing::info!(%status, "a gateway's stream ended");
            } else {
                tracing::warn!(%status, "a gateway's stream ended");
            }
            let _ = outbound.send(Err(status)).await;
        });
        Ok(response)
    }
}

fn authorise<T>(edge: &Edge, request: &Request<T>) -> Result<(), Status> {
    let token = request
        .metadata()
        .get("authorization")
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    match token.and_then(|token| edge.credentials.role_of(token)) {
        Some(Role::Gateway) => Ok(()),
        _ => Err(Status::unauthenticated(
            "send the token that is in gateway.token in the coordinator's data folder",
        )),
    }
}

/// Tells control that the connection is over, however it ends.
struct Connection {
    control: Handle,
    id: ConnectionId,
    name: GatewayName,
    /// Cancelled when the gateway is sent away.
    over: CancellationToken,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (control, id) = (self.control.clone(), self.id);
            runtime.spawn(async move { control.tell(Command::GatewayClosed(id)).await });
        }
    }
}

async fn follow(
    edge: &Arc<Edge>,
    mut inbound: Streaming<GatewayMessage>,
    outbound: &Outbound<RouteMessage>,
) -> Result<(), Status> {
    let first = tokio::time::timeout(HELLO, inbound.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no hello within 10 s"))??
        .unwrap_or_default();
    let hello = first
        .hello
        .ok_or_else(|| Status::failed_precondition("the first message must have a hello"))?;
    let name: GatewayName = hello
        .name
        .parse()
        .map_err(|error| Status::invalid_argument(format!("field hello.name: {error}")))?;
    let opened = GatewayOpened {
        name: name.clone(),
        url: hello.url,
        incarnation: hello.incarnation,
        beside: hello.beside,
        draining: first.report.as_ref().is_some_and(|r| r.draining),
    };
    let following = edge
        .control
        .ask(|reply| Command::GatewayOpened(Box::new(opened), reply))
        .await
        .map_err(|problem| status(&problem))?;
    let connection = Connection {
        control: edge.control.clone(),
        id: following.connection,
        name,
        over: following.over,
    };
    tracing::info!(gateway = %connection.name, "a gateway follows the route table");
    if let Some(report) = first.report {
        reported(&connection, report).await?;
    }
    if !first.csr.is_empty() {
        certify(edge, &connection, &first.csr, outbound).await?;
    }
    exchange(edge, &connection, inbound, outbound, following.tables).await
}

async fn exchange(
    edge: &Arc<Edge>,
    connection: &Connection,
    mut inbound: Streaming<GatewayMessage>,
    outbound: &Outbound<RouteMessage>,
    mut table: watch::Receiver<Arc<Table>>,
) -> Result<(), Status> {
    // Tables that come while one is under way are sent as one: the newest.
    let mut unsent = true;
    let mut deadline = Instant::now() + SILENCE;
    loop {
        let message = tokio::time::timeout_at(deadline, inbound.message());
        tokio::select! {
            message = message => match message {
                Ok(Ok(Some(message))) => {
                    deadline = Instant::now() + SILENCE;
                    if let Some(report) = message.report {
                        reported(connection, report).await?;
                    }
                    if !message.csr.is_empty() {
                        certify(edge, connection, &message.csr, outbound).await?;
                    }
                    if message.goodbye {
                        let left = Command::GatewayLeft(connection.id);
                        connection.control.tell(left).await;
                        return Ok(());
                    }
                }
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(status)) => return Err(status),
                Err(_) => return Err(Status::deadline_exceeded("no report for 10 s")),
            },
            changed = table.changed(), if !unsent => match changed {
                Ok(()) => unsent = true,
                Err(_) => return Err(Status::unavailable("the coordinator is shutting down")),
            },
            place = outbound.reserve(), if unsent => {
                let Ok(place) = place else { return Ok(()) };
                let newest = Arc::clone(&table.borrow_and_update());
                unsent = false;
                // None was made yet, as while looking around after a restore: what gateways have is
                // better than nothing, and one that has none must not take this for one.
                if newest.version != Order::default() {
                    place.send(Ok(message_of(&newest)?));
                }
            }
            () = connection.over.cancelled() => {
                let message = format!("gateway {} was revoked", connection.name);
                return Err(Status::permission_denied(message));
            }
            () = outbound.closed() => return Ok(()),
            () = edge.shutdown.cancelled() => {
                return Err(Status::unavailable("the coordinator is shutting down"));
            }
        }
    }
}

fn message_of(table: &Table) -> Result<RouteMessage, Status> {
    let table_json = serde_json::to_vec(table)
        .map_err(|error| Status::internal(format!("the table has no JSON form: {error}")))?;
    Ok(RouteMessage {
        table_json: table_json.into(),
        certificate: None,
    })
}

/// Answers a certificate request.
async fn certify(
    edge: &Arc<Edge>,
    connection: &Connection,
    csr: &[u8],
    outbound: &Outbound<RouteMessage>,
) -> Result<(), Status> {
    let certificate = certify::gateway(edge, connection.id, &connection.name, csr).await?;
    let message = RouteMessage {
        table_json: Default::default(),
        certificate: Some(certificate),
    };
    // One that has gone asks again when it is back.
    let _ = outbound.send(Ok(message)).await;
    Ok(())
}

async fn reported(connection: &Connection, report: GatewayReport) -> Result<(), Status> {
    let report = report
        .try_into()
        .map_err(|error: berth_proto::ConvertError| Status::invalid_argument(error.to_string()))?;
    connection
        .control
        .tell(Command::GatewayReported(connection.id, report))
        .await;
    Ok(())
}
