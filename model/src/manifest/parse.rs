//! A manifest's text to a [`Manifest`].

use toml::de::DeTable;

use super::{Manifest, sections, serving, tfserving};
use crate::read::{FileErrors, Section, Sink};

/// The manifest's name in a package.
pub const FILE_NAME: &str = "berth.toml";
/// Longest manifest in bytes.
pub const MAX_BYTES: usize = 1 << 20;

const ROOT: [&str; 11] = [
    "package",
    "model",
    "module",
    "tf-serving",
    "transform",
    "health",
    "job",
    "resources",
    "network",
    "golden",
    "limits",
];

/// Reads a manifest. `file_name` is only shown in errors. Errors: every mistake at once.
pub fn parse(text: &str, file_name: &str) -> Result<Manifest, FileErrors> {
    let sink = Sink::default();
    if text.len() > MAX_BYTES {
        sink.report(0, format!("the manifest is longer than {MAX_BYTES} bytes"));
        return Err(sink.finish(text, file_name, Vec::new()));
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    let syntax: Vec<(usize, String)> = errors
        .iter()
        .map(|error| {
            (
                error.span().map_or(0, |span| span.start),
                error.message().to_owned(),
            )
        })
        .collect();
    let root = Section::new("the manifest", document.get_ref(), 0, &ROOT, &sink);
    let manifest = manifest(&root);
    match manifest {
        Some(manifest) if syntax.is_empty() && sink.is_empty() => Ok(manifest),
        _ => Err(sink.finish(text, file_name, syntax)),
    }
}

/// Every section is read before any result is looked at, so that all mistakes are found.
fn manifest(root: &Section<'_, '_>) -> Option<Manifest> {
    let package = sections::package(root);
    let module = serving::module(root);
    let kind = module.as_ref().map(|module| module.kind);
    let model = sections::model(root, kind);
    let tf_serving = tfserving::tf_serving(root, kind);
    let transform = serving::transform(root);
    let health = serving::health(root, module.as_ref());
    let job = serving::job(root);
    let resources = sections::resources(root);
    let egress = sections::network(root);
    let golden = sections::golden(root);
    let limits = sections::limits(root);
    Some(Manifest {
        package: package?,
        model: model?,
        module: module?,
        tf_serving: tf_serving?,
        transform: transform?,
        health: health?,
        job: job?,
        resources: resources?,
        egress: egress?,
        golden: golden?,
        limits: limits?,
    })
}
