//! Fleets as a whole: plan, apply, export.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use berth_model::api::{ChangeAction, Fleet, FleetPlan, FleetRequest};
use berth_model::id::FleetName;
use berth_model::problem::Problem;
use serde::Deserialize;

use super::extract::{LargeJson, Query};
use super::failure::Failure;
use crate::control::{Command, Declared, NewJob};
use crate::edge::Edge;
use crate::input;

/// What `GET /v1/export` understands, for the OpenAPI document.
pub(super) const PARAMETERS: &[(&str, &str)] = &[(
    "fleet",
    "Whose things, beside those that were made by hand. May be left out where only one fleet's files declare \
     anything.",
)];

/// What is exported.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Export {
    #[serde(default)]
    fleet: Option<FleetName>,
}

pub(super) async fn plan(
    State(edge): State<Arc<Edge>>,
    LargeJson(request): LargeJson<FleetRequest>,
) -> Result<Answer<FleetPlan>, Failure> {
    Ok(Answer(planned(&edge, &request).await?))
}

pub(super) async fn apply(
    State(edge): State<Arc<Edge>>,
    LargeJson(request): LargeJson<FleetRequest>,
) -> Result<Answer<FleetPlan>, Failure> {
    // Until the jobs are there, nobody removes the blobs that they need.
    let _held = edge.inputs.read().await;
    let jobs = cut(&edge, &request).await?;
    let command = |reply| Command::Declared(Declared::Apply(Box::new(request), jobs, reply));
    Ok(Answer(edge.control.ask(command).await?))
}

pub(super) async fn export(
    State(edge): State<Arc<Edge>>,
    Query(wanted): Query<Export>,
) -> Result<Answer<Fleet>, Failure> {
    let command = |reply| Command::Declared(Declared::Export(wanted.fleet, reply));
    Ok(Answer(edge.control.ask(command).await?))
}

async fn planned(edge: &Edge, request: &FleetRequest) -> Result<FleetPlan, Problem> {
    let request = Box::new(request.clone());
    edge.control
        .ask(|reply| Command::Declared(Declared::Plan(request, reply)))
        .await
}

/// The jobs that are not there yet, with their inputs cut. Errors: 422 with every input that cannot be one.
async fn cut(edge: &Edge, request: &FleetRequest) -> Result<Vec<NewJob>, Problem> {
    if request.fleet.jobs.is_empty() {
        return Ok(Vec::new());
    }
    let plan = planned(edge, request).await?;
    let mut jobs = Vec::new();
    let mut errors = Vec::new();
    for change in &plan.changes {
        let Some(name) = change.subject.strip_prefix("job/") else {
            continue;
        };
        let Some((name, wanted)) = request.fleet.jobs.get_key_value(name) else {
            continue;
        };
        if change.action != ChangeAction::Create {
            continue;
        }
        let mut wanted = wanted.clone();
        wanted.name = Some(name.clone());
        match input::cut(&edge.blobs, wanted).await {
            Ok(new) => jobs.push(new),
            Err(problem) if problem.status < 500 => {
                errors.push(format!("job.{name}.input: {}", problem.detail));
            }
            Err(problem) => return Err(problem),
        }
    }
    if errors.is_empty() {
        return Ok(jobs);
    }
    let detail = "inputs of jobs cannot be used; nothing was changed";
    Err(Problem {
        errors,
        ..Problem::new(422, "invalid-fleet", "Invalid fleet", detail)
    })
}
