//! Jobs: create, look, watch, fetch the output, delete.

use std::sync::Arc;

use axum::Json as Answer;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use berth_model::api::{CreateJob, JobView, List};
use berth_model::id::JobName;
use berth_model::problem::Problem;
use tokio_util::io::ReaderStream;

use super::extract::{Json, Name, Names};
use super::failure::Failure;
use super::stream::{self, Sender};
use super::{blobs, services};
use crate::control::Command;
use crate::edge::Edge;
use crate::input;

const KIND: HeaderName = HeaderName::from_static("berth-output");

/// Bytes per read of a download.
const READ: usize = 256 * 1024;

pub(super) async fn create(
    State(edge): State<Arc<Edge>>,
    Json(wanted): Json<CreateJob>,
) -> Result<(StatusCode, Answer<JobView>), Failure> {
    // Until the job is there, nobody removes the blobs that it needs.
    let _held = edge.inputs.read().await;
    let new = input::cut(&edge.blobs, wanted).await?;
    let view = edge
        .control
        .ask(|reply| Command::CreateJob(Box::new(new), reply))
        .await?;
    Ok((StatusCode::CREATED, Answer(view)))
}

pub(super) async fn list(State(edge): State<Arc<Edge>>) -> Result<Answer<List<JobView>>, Failure> {
    let items = edge.control.ask(Command::Jobs).await?;
    Ok(Answer(List { items }))
}

pub(super) async fn show(
    State(edge): State<Arc<Edge>>,
    Name(job): Name<JobName>,
) -> Result<Answer<JobView>, Failure> {
    Ok(Answer(view(&edge, &job).await?))
}

pub(super) async fn delete(
    State(edge): State<Arc<Edge>>,
    Name(job): Name<JobName>,
) -> Result<(StatusCode, Answer<JobView>), Failure> {
    let view = edge
        .control
        .ask(|reply| Command::DeleteJob(job, reply))
        .await?;
    Ok((StatusCode::ACCEPTED, Answer(view)))
}

pub(super) async fn output(
    State(edge): State<Arc<Edge>>,
    Names(job, index): Names<JobName, u32>,
) -> Result<Response, Failure> {
    let output = edge
        .control
        .ask(|reply| Command::JobOutput(job, index, reply))
        .await?;
    let (file, size) = blobs::open(&edge, &output.blob).await?;
    let kind = if output.folder { "folder" } else { "file" };
    let headers = [
        (
            CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        ),
        (CONTENT_LENGTH, HeaderValue::from(size)),
        (KIND, HeaderValue::from_static(kind)),
    ];
    let body = Body::from_stream(ReaderStream::with_capacity(file, READ));
    Ok((headers, body).into_response())
}

pub(super) async fn watch(
    State(edge): State<Arc<Edge>>,
    Name(job): Name<JobName>,
) -> Result<Response, Failure> {
    // Taken before the first look, so that no change between the two is missed.
    let mut changes = edge.control.changes();
    changes.mark_unchanged();
    let first = view(&edge, &job).await?;
    let shutdown = edge.shutdown.clone();
    Ok(stream::events(
        &shutdown,
        move |sender: Sender| async move {
            let mut last = first;
            sender.json("job", None, &last).await?;
            loop {
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() { return None },
                    () = sender.closed() => return None,
                }
                let now = match view(&edge, &job).await {
                    Ok(now) => now,
                    Err(problem) => return services::ended(&sender, &problem).await,
                };
                if now != last {
                    sender.json("job", None, &now).await?;
                    last = now;
                }
            }
        },
    ))
}

async fn view(edge: &Edge, job: &JobName) -> Result<JobView, Problem> {
    let job = job.clone();
    edge.control.ask(|reply| Command::Job(job, reply)).await
}
