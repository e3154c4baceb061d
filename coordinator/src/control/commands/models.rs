//! The registry of models.

use berth_model::digest::BlobDigest;
use berth_model::problem::Problem;
use berth_model::service::ModelVersion;

use super::{check_size, jobs};
use crate::control::events::Happened;
use crate::control::modelref::versions;
use crate::control::world::World;

/// Most bytes of a version's record, which is mostly its manifest.
const MAX_BYTES: usize = 512 * 1024;

/// Registers a verified package. The same package again answers what is there already.
pub(crate) fn register(
    world: &mut World,
    mut version: ModelVersion,
) -> Result<ModelVersion, Problem> {
    let there =
        versions(&world.records.models, &version.name).find(|v| v.version == version.version);
    if let Some(there) = there {
        if there.digest == version.digest {
            return Ok(there.clone());
        }
        return Err(Problem::conflict(format!(
            "{} {} was pushed before with another content ({}), and a pushed version never changes: raise \
             `version` in berth.toml and push again",
            there.name, there.version, there.digest
        )));
    }
    check_size("the manifest (berth.toml)", &version, MAX_BYTES)?;
    let serial = world.records.serials.get(&version.name).copied();
    // The counter survives what it counted; both are looked at so that neither can lag.
    let newest = versions(&world.records.models, &version.name).next_back();
    let serial = serial.unwrap_or(0).max(newest.map_or(0, |v| v.serial)) + 1;
    version.serial = serial;
    version.pushed = world.wall;
    world.happened(&Happened::ModelPushed(
        version.name.as_str(),
        format!("{} (#{serial})", version.version),
    ));
    world.records.serials.put(version.name.clone(), serial);
    let key = (version.name.clone(), serial);
    world.records.models.put(key, version.clone());
    Ok(version)
}

/// The size of a registered model's archive, or of what a live job works on as far as it does. Errors:
/// 404 for any other digest.
pub(crate) fn blob_bytes(world: &World, blob: &BlobDigest) -> Result<u64, Problem> {
    let mut models = world.records.models.values();
    models
        .find(|v| v.blob == *blob)
        .map(|v| v.blob_bytes)
        .or_else(|| jobs::input_bytes(world, blob))
        .ok_or_else(|| {
            Problem::not_found(format!(
                "no registered model has the archive {blob}, and no job works on it"
            ))
        })
}
