//! Tokens, clusters, gateways, status.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::IntoResponse;
use berth_model::api::{ClusterView, CreateToken, GatewayView, List, StatusView};
use berth_model::id::{ClusterName, GatewayName};

use super::extract::{Json, Name};
use super::failure::Failure;
use crate::control::Command;
use crate::edge::Edge;

pub(super) async fn create_token(
    State(edge): State<Arc<Edge>>,
    Json(wanted): Json<CreateToken>,
) -> Result<impl IntoResponse, Failure> {
    let token = edge
        .control
        .ask(|reply| Command::CreateToken(wanted, reply))
        .await?;
    Ok((
        StatusCode::CREATED,
        [(CACHE_CONTROL, "no-store")],
        Answer(token),
    ))
}

pub(super) async fn clusters(
    State(edge): State<Arc<Edge>>,
) -> Result<Answer<List<ClusterView>>, Failure> {
    let items = edge.control.ask(Command::Clusters).await?;
    Ok(Answer(List { items }))
}

pub(super) async fn cluster(
    State(edge): State<Arc<Edge>>,
    Name(cluster): Name<ClusterName>,
) -> Result<Answer<ClusterView>, Failure> {
    let command = |reply| Command::Cluster(cluster, reply);
    Ok(Answer(edge.control.ask(command).await?))
}

pub(super) async fn gateways(
    State(edge): State<Arc<Edge>>,
) -> Result<Answer<List<GatewayView>>, Failure> {
    let items = edge.control.ask(Command::Gateways).await?;
    Ok(Answer(List { items }))
}

pub(super) async fn revoke_gateway(
    State(edge): State<Arc<Edge>>,
    Name(gateway): Name<GatewayName>,
) -> Result<Answer<GatewayView>, Failure> {
    let command = |reply| Command::RevokeGateway(gateway, reply);
    Ok(Answer(edge.control.ask(command).await?))
}

pub(super) async fn remove_gateway(
    State(edge): State<Arc<Edge>>,
    Name(gateway): Name<GatewayName>,
) -> Result<Answer<GatewayView>, Failure> {
    let command = |reply| Command::RemoveGateway(gateway, reply);
    Ok(Answer(edge.control.ask(command).await?))
}

pub(super) async fn status(State(edge): State<Arc<Edge>>) -> Result<Answer<StatusView>, Failure> {
    Ok(Answer(edge.control.ask(Command::Status).await?))
}
