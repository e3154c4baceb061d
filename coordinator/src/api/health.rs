//! Whether the process is well, and its figures.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use berth_model::problem::Problem;

use super::failure::Failure;
use super::machines;
use crate::control::Command;
use crate::edge::Edge;

/// Longest time for control to answer a probe.
const PROBE: Duration = Duration::from_secs(2);

pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

pub(super) async fn readyz(State(edge): State<Arc<Edge>>) -> Result<&'static str, Failure> {
    if edge.shutdown.is_cancelled() {
        return Err(Problem::unavailable("the coordinator is shutting down").into());
    }
    match tokio::time::timeout(PROBE, edge.control.ready()).await {
        Ok(Ok(())) => Ok("ready\n"),
        Ok(Err(problem)) => Err(problem.into()),
        Err(_) => Err(Problem::unavailable("control does not answer").into()),
    }
}

pub(super) async fn metrics(State(edge): State<Arc<Edge>>) -> impl IntoResponse {
    let mut text = edge.control.metrics().render();
    // The figures of this process are told also when control does not answer.
    let asked = edge.control.ask(Command::Machines);
    if let Ok(Ok(machines)) = tokio::time::timeout(PROBE, asked).await {
        text.push_str(&machines::render(&machines));
    }
    text.push_str(&edge.figures.render());
    text.push_str(&logs(edge.logs.counters()));
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

pub(super) async fn modules(State(edge): State<Arc<Edge>>) -> Result<impl IntoResponse, Failure> {
    let services = edge.control.ask(Command::Services).await?;
    let modules = Arc::clone(&edge.modules);
    // Some thousand instances' texts take a while.
    let text = tokio::task::spawn_blocking(move || modules.render(&services))
        .await
        .map_err(|error| Problem::unavailable(error.to_string()))?;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4")], text))
}

fn logs(counters: berth_logs::Counters) -> String {
    let figures = [
        ("berth_log_lines_total", counters.lines),
        ("berth_log_bytes_total", counters.bytes),
        ("berth_log_dropped_lines_total", counters.gap_lines),
        ("berth_log_batches_total", counters.batches),
        ("berth_log_syncs_total", counters.syncs),
    ];
    figures
        .iter()
        .map(|(name, value)| format!("# TYPE {name} counter\n{name} {value}\n"))
        .collect()
}
