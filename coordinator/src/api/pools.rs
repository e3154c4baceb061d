//! Pools: make, look, delete.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use berth_model::api::{List, PoolView, PutPool};
use berth_model::id::PoolName;

use super::extract::{Json, Name};
use super::failure::Failure;
use crate::control::{Command, Declared};
use crate::edge::Edge;

pub(super) async fn list(State(edge): State<Arc<Edge>>) -> Result<Answer<List<PoolView>>, Failure> {
    let items = edge
        .control
        .ask(|reply| Command::Declared(Declared::Pools(reply)))
        .await?;
    Ok(Answer(List { items }))
}

pub(super) async fn show(
    State(edge): State<Arc<Edge>>,
    Name(pool): Name<PoolName>,
) -> Result<Answer<PoolView>, Failure> {
    let command = |reply| Command::Declared(Declared::Pool(pool, reply));
    Ok(Answer(edge.control.ask(command).await?))
}

pub(super) async fn put(
    State(edge): State<Arc<Edge>>,
    Name(pool): Name<PoolName>,
    Json(wanted): Json<PutPool>,
) -> Result<Answer<PoolView>, Failure> {
    let command = |reply| Command::Declared(Declared::PutPool(pool, wanted, reply));
    Ok(Answer(edge.control.ask(command).await?))
}

pub(super) async fn delete(
    State(edge): State<Arc<Edge>>,
    Name(pool): Name<PoolName>,
) -> Result<Answer<PoolView>, Failure> {
    let command = |reply| Command::Declared(Declared::DeletePool(pool, reply));
    Ok(Answer(edge.control.ask(command).await?))
}
