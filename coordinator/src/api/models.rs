//! Models: register what was uploaded, and look.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use berth_model::api::{List, ModelVersionView, ModelView, RegisterModel};
use berth_model::digest::BlobDigest;
use berth_model::id::ModelName;
use berth_model::problem::Problem;
use berth_model::service::ModelVersion;
use berth_model::time::Timestamp;
use berth_package::{Limits, PackageError};

use super::blobs;
use super::extract::{Json, Name};
use super::failure::Failure;
use crate::control::Command;
use crate::edge::Edge;

pub(super) async fn register(
    State(edge): State<Arc<Edge>>,
    Json(wanted): Json<RegisterModel>,
) -> Result<(StatusCode, Answer<ModelVersionView>), Failure> {
    // Until the version is there, nobody removes the blob that it needs.
    let _held = edge.inputs.read().await;
    let version = verified(&edge, wanted.blob).await?;
    let version = edge
        .control
        .ask(|reply| Command::RegisterModel(Box::new(version), reply))
        .await?;
    Ok((StatusCode::CREATED, Answer(view(version))))
}

pub(super) async fn list(
    State(edge): State<Arc<Edge>>,
) -> Result<Answer<List<ModelView>>, Failure> {
    let items = edge.control.ask(Command::Models).await?;
    Ok(Answer(List { items }))
}

pub(super) async fn show(
    State(edge): State<Arc<Edge>>,
    Name(model): Name<ModelName>,
) -> Result<Answer<ModelView>, Failure> {
    let view = edge
        .control
        .ask(|reply| Command::Model(model, reply))
        .await?;
    Ok(Answer(view))
}

/// Reads the whole package: nothing is registered that an agent would refuse.
async fn verified(edge: &Edge, blob: BlobDigest) -> Result<ModelVersion, Failure> {
    let _place = edge
        .verifying
        .acquire()
        .await
        .map_err(|_| Problem::unavailable("the coordinator is shutting down"))?;
    let (file, bytes) = blobs::open(edge, &blob).await?;
    let file = file.into_std().await;
    let verify = move || berth_package::verify_reader(file, None, Limits::default());
    let summary = tokio::task::spawn_blocking(verify)
        .await
        .map_err(|error| Problem::internal(format!("verifying the package failed: {error}")))?
        .map_err(|error| refused(&blob, error))?;
    Ok(ModelVersion {
        name: summary.name,
        version: summary.version,
        serial: 0,
        digest: summary.digest,
        blob,
        blob_bytes: bytes,
        unpacked_bytes: summary.size,
        manifest: summary.manifest,
        pushed: Timestamp::default(),
    })
}

/// The package's fault is the client's to mend; anything else is ours.
fn refused(blob: &BlobDigest, error: PackageError) -> Problem {
    match error {
        PackageError::Io { doing, source } => {
            Problem::internal(format!("cannot {doing} of {blob}: {source}"))
        }
        PackageError::Manifest(errors) => Problem {
            errors: errors.to_string().lines().map(str::to_owned).collect(),
            ..Problem::new(
                422,
                "invalid-manifest",
                "Invalid manifest",
                "the package's berth.toml has mistakes; mend them, build and push again",
            )
        },
        error => Problem {
            errors: vec![error.to_string()],
            ..Problem::new(
                422,
                "invalid-package",
                "Invalid package",
                format!("{blob} is no package that nodes would take: {error}"),
            )
        },
    }
}

fn view(version: ModelVersion) -> ModelVersionView {
    ModelVersionView {
        name: version.name,
        version: version.version,
        serial: version.serial,
        digest: version.digest,
        archive_bytes: version.blob_bytes,
        unpacked_bytes: version.unpacked_bytes,
        description: version.manifest.package.description,
        task: version.manifest.model.task,
        metrics: version.manifest.model.metrics,
        resources: version.manifest.resources,
        pushed: version.pushed,
    }
}
