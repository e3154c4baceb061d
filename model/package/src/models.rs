//! Whether a module finds in the package what it will look for: told to the author, not found out on a node.

use std::collections::BTreeSet;

use berth_model::manifest::{Manifest, ModelFormat, Preset};

use crate::error::Refused;
use crate::index::{EntryKind, Index};

/// What makes a folder a SavedModel.
const SAVED_MODEL: [&str; 2] = ["saved_model.pb", "saved_model.pbtxt"];

/// What `preset = "python"` installs.
const REQUIREMENTS: &str = "requirements.txt";

/// Errors: something that the module needs is missing or at another place.
pub(crate) fn check(manifest: &Manifest, index: &Index) -> Result<(), Refused> {
    if manifest.module.preset == Some(Preset::Python) && !is_file(index, REQUIREMENTS) {
        return Err(Refused::Needs {
            problem: format!(
                "preset = \"python\" installs {REQUIREMENTS}, and there is none in the package: write one, empty if \
                 nothing is needed"
            ),
        });
    }
    if manifest.model.format == ModelFormat::SavedModel {
        saved_model(&manifest.model.path, index).map_err(|problem| Refused::Needs { problem })?;
    }
    Ok(())
}

fn is_file(index: &Index, path: &str) -> bool {
    let found = index.get(path).map(|entry| &entry.kind);
    matches!(found, Some(EntryKind::File { .. } | EntryKind::Link { .. }))
}

fn join(folder: &str, name: &str) -> String {
    match folder {
        "." => name.to_owned(),
        folder => format!("{folder}/{name}"),
    }
}

fn is_saved_model(folder: &str, index: &Index) -> bool {
    SAVED_MODEL
        .iter()
        .any(|name| is_file(index, &join(folder, name)))
}

/// The error says what was found and what to write.
fn saved_model(path: &str, index: &Index) -> Result<(), String> {
    if path != "." && is_file(index, path) {
        let folder = path.rsplit_once('/').map_or(".", |(folder, _)| folder);
        return Err(format!(
            "[model] path is the file {path:?}, and a SavedModel is a folder: write path = {folder:?}"
        ));
    }
    if is_saved_model(path, index) {
        return Ok(());
    }
    let found = inside(path, index);
    if found.is_empty() {
        return Err(format!(
            "[model] path: the folder {path:?} is empty; export the SavedModel into it (it holds saved_model.pb and \
             variables/)"
        ));
    }
    let folders: Vec<String> = found.iter().map(|name| join(path, name)).collect();
    let models: Vec<&String> = folders
        .iter()
        .filter(|f| is_saved_model(f, index))
        .collect();
    let numbered = |folder: &str| {
        let name = folder.rsplit('/').next().unwrap_or_default();
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit())
    };
    match models[..] {
        [one] if numbered(one) => Err(format!(
            "[model] path: {path:?} holds the version folder {one:?}; Berth numbers versions itself: write path = {one:?}"
        )),
        [one] => Err(format!(
            "[model] path: the SavedModel is in {one:?}, whose name is no version number; Berth numbers versions itself: \
             write path = {one:?}"
        )),
        [first, ..] => Err(format!(
            "[model] path: {path:?} holds {} SavedModels ({}), and a package is one version of a model: write the one \
             to serve, as in path = {first:?}",
            models.len(),
            shown(&models)
        )),
        [] => Err(nothing(path, &found, &folders, numbered)),
    }
}

fn nothing(
    path: &str,
    found: &BTreeSet<&str>,
    folders: &[String],
    numbered: impl Fn(&str) -> bool,
) -> String {
    let found: Vec<&str> = found.iter().copied().collect();
    let broken = folders.iter().find(|folder| numbered(folder));
    match broken {
        Some(version) => format!(
            "[model] path: neither {path:?} nor its version folder {version:?} holds saved_model.pb; export the SavedModel \
             (tf.saved_model.save or model.export) and write the folder that holds saved_model.pb"
        ),
        None => format!(
            "[model] path: {path:?} is no SavedModel: it holds {} and no saved_model.pb; write the folder that tf.saved_model.save \
             or model.export wrote (a .keras or .h5 file is none)",
            shown(&found)
        ),
    }
}

/// The first few of some names.
fn shown<T: std::fmt::Display>(names: &[T]) -> String {
    let first: Vec<String> = names
        .iter()
        .take(5)
        .map(|name| format!("\"{name}\""))
        .collect();
    match names.len() {
        0..=5 => first.join(", "),
        more => format!("{} and {} more", first.join(", "), more - 5),
    }
}

/// The names of what lies directly in a folder.
fn inside<'a>(folder: &str, index: &'a Index) -> BTreeSet<&'a str> {
    let prefix = match folder {
        "." => String::new(),
        folder => format!("{folder}/"),
    };
    index
        .entries()
        .iter()
        .filter_map(|entry| entry.path.strip_prefix(&prefix))
        .filter_map(|rest| rest.split('/').next())
        .collect()
}
