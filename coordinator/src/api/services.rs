//! Services: deploy, look, scale, delete, watch.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use berth_model::api::{Deploy, List, Scale, ServiceView};
use berth_model::id::ServiceName;
use berth_model::problem::Problem;

use super::extract::{Json, Name};
use super::failure::Failure;
use super::stream::{self, Sender};
use crate::control::Command;
use crate::edge::Edge;

pub(super) async fn deploy(
    State(edge): State<Arc<Edge>>,
    Json(wanted): Json<Deploy>,
) -> Result<Answer<ServiceView>, Failure> {
    let view = edge
        .control
        .ask(|reply| Command::Deploy(Box::new(wanted), reply))
        .await?;
    Ok(Answer(view))
}

pub(super) async fn list(
    State(edge): State<Arc<Edge>>,
) -> Result<Answer<List<ServiceView>>, Failure> {
    let items = edge.control.ask(Command::Services).await?;
    Ok(Answer(List { items }))
}

pub(super) async fn show(
    State(edge): State<Arc<Edge>>,
    Name(service): Name<ServiceName>,
) -> Result<Answer<ServiceView>, Failure> {
    Ok(Answer(view(&edge, &service).await?))
}

pub(super) async fn scale(
    State(edge): State<Arc<Edge>>,
    Name(service): Name<ServiceName>,
    Json(wanted): Json<Scale>,
) -> Result<Answer<ServiceView>, Failure> {
    let view = edge
        .control
        .ask(|reply| Command::Scale(service, wanted.replicas, reply))
        .await?;
    Ok(Answer(view))
}

pub(super) async fn delete(
    State(edge): State<Arc<Edge>>,
    Name(service): Name<ServiceName>,
) -> Result<(StatusCode, Answer<ServiceView>), Failure> {
    let view = edge
        .control
        .ask(|reply| Command::Delete(service, reply))
        .await?;
    Ok((StatusCode::ACCEPTED, Answer(view)))
}

pub(super) async fn watch(
    State(edge): State<Arc<Edge>>,
    Name(service): Name<ServiceName>,
) -> Result<Response, Failure> {
    // Taken before the first look, so that no change between the two is missed.
    let mut changes = edge.control.changes();
    changes.mark_unchanged();
    let first = view(&edge, &service).await?;
    let shutdown = edge.shutdown.clone();
    Ok(stream::events(&shutdown, move |sender| async move {
        let mut last = first;
        sender.json("service", None, &last).await?;
        loop {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return None },
                () = sender.closed() => return None,
            }
            let now = match view(&edge, &service).await {
                Ok(now) => now,
                Err(problem) => return ended(&sender, &problem).await,
            };
            if now != last {
                sender.json("service", None, &now).await?;
                last = now;
            }
        }
    }))
}

pub(super) async fn ended(sender: &Sender, problem: &Problem) -> Option<()> {
    let event = if problem.status == 404 {
        "deleted"
    } else {
        "problem"
    };
    sender.json(event, None, problem).await
}

async fn view(edge: &Edge, service: &ServiceName) -> Result<ServiceView, Problem> {
    let service = service.clone();
    edge.control
        .ask(|reply| Command::Service(service, reply))
        .await
}
