//! Models as the API shows them.

use berth_model::api::{ModelVersionView, ModelView};
use berth_model::id::ModelName;
use berth_model::problem::Problem;
use berth_model::service::ModelVersion;

use crate::control::modelref::{unknown_model, versions};
use crate::control::world::World;

/// All models by name.
pub(crate) fn all(world: &World) -> Vec<ModelView> {
    let mut out: Vec<ModelView> = Vec::new();
    for (name, _) in world.records.models.keys() {
        if out.last().is_none_or(|last| last.name != *name) {
            out.push(view(world, name));
        }
    }
    out
}

/// One model. Errors: 404 with what there is.
pub(crate) fn one(world: &World, name: &ModelName) -> Result<ModelView, Problem> {
    let view = view(world, name);
    if view.versions.is_empty() {
        return Err(unknown_model(&world.records.models, name));
    }
    Ok(view)
}

fn view(world: &World, name: &ModelName) -> ModelView {
    ModelView {
        name: name.clone(),
        versions: versions(&world.records.models, name)
            .rev()
            .map(version)
            .collect(),
    }
}

fn version(v: &ModelVersion) -> ModelVersionView {
    ModelVersionView {
        name: v.name.clone(),
        version: v.version.clone(),
        serial: v.serial,
        digest: v.digest,
        archive_bytes: v.blob_bytes,
        unpacked_bytes: v.unpacked_bytes,
        description: v.manifest.package.description.clone(),
        task: v.manifest.model.task.clone(),
        metrics: v.manifest.model.metrics.clone(),
        resources: v.manifest.resources,
        pushed: v.pushed,
    }
}
