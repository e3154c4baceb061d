//! Nodes: look, cordon, drain, label, take out.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use berth_model::api::{DrainNode, LabelNode, List, NodeView};
use berth_model::id::NodeName;

use super::extract::{Json, Name};
use super::failure::Failure;
use crate::control::Command;
use crate::edge::Edge;

pub(super) async fn list(State(edge): State<Arc<Edge>>) -> Result<Answer<List<NodeView>>, Failure> {
    let items = edge.control.ask(Command::Nodes).await?;
    Ok(Answer(List { items }))
}

pub(super) async fn show(
    State(edge): State<Arc<Edge>>,
    Name(node): Name<NodeName>,
) -> Result<Answer<NodeView>, Failure> {
    let view = edge.control.ask(|reply| Command::Node(node, reply)).await?;
    Ok(Answer(view))
}

pub(super) async fn cordon(
    State(edge): State<Arc<Edge>>,
    Name(node): Name<NodeName>,
) -> Result<Answer<NodeView>, Failure> {
    let command = |reply| Command::CordonNode(node, true, reply);
    Ok(Answer(edge.control.ask(command).await?))
}

pub(super) async fn uncordon(
    State(edge): State<Arc<Edge>>,
    Name(node): Name<NodeName>,
) -> Result<Answer<NodeView>, Failure> {
    let command = |reply| Command::CordonNode(node, false, reply);
    Ok(Answer(edge.control.ask(command).await?))
}

pub(super) async fn drain(
    State(edge): State<Arc<Edge>>,
    Name(node): Name<NodeName>,
    Json(wanted): Json<DrainNode>,
) -> Result<(StatusCode, Answer<NodeView>), Failure> {
    let command = |reply| Command::DrainNode(node, wanted, reply);
    let view = edge.control.ask(command).await?;
    Ok((StatusCode::ACCEPTED, Answer(view)))
}

pub(super) async fn label(
    State(edge): State<Arc<Edge>>,
    Name(node): Name<NodeName>,
    Json(wanted): Json<LabelNode>,
) -> Result<Answer<NodeView>, Failure> {
    let command = |reply| Command::LabelNode(node, wanted, reply);
    Ok(Answer(edge.control.ask(command).await?))
}

pub(super) async fn remove(
    State(edge): State<Arc<Edge>>,
    Name(node): Name<NodeName>,
) -> Result<Answer<NodeView>, Failure> {
    let command = |reply| Command::RemoveNode(node, reply);
    Ok(Answer(edge.control.ask(command).await?))
}
