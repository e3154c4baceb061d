//! What the tests of this crate share.

use std::collections::BTreeMap;

use berth_model::id::InstanceId;
use berth_model::instance::{InstanceSpec, Intent};
use berth_model::manifest;

pub(crate) fn id(text: &str) -> InstanceId {
    text.parse().unwrap()
}

/// A module with a start time-out of ten seconds that is unhealthy after two failed checks.
pub(crate) fn spec(text: &str, intent: Intent) -> InstanceSpec {
    let manifest = "\
        [package]\nname = \"web\"\nversion = \"1.0.0\"\n\
        [model]\npath = \"model\"\nformat = \"custom\"\n\
        [module]\nkind = \"custom\"\ncommand = [\"./serve\"]\nstop_grace = \"3s\"\n\
        [health]\nhttp = \"/healthz\"\nstart_timeout = \"10s\"\ninterval = \"1s\"\nunhealthy_after = 2\n";
    InstanceSpec {
        id: id(text),
        digest: format!("sha256:{}", "ab".repeat(32)).parse().unwrap(),
        blob: format!("blake3:{}", "cd".repeat(32)).parse().unwrap(),
        blob_bytes: 1,
        version: "1.0.0".parse().unwrap(),
        serial: 1,
        runtime: berth_model::node::RuntimeKind::Process,
        manifest: manifest::parse(manifest, "berth.toml").unwrap(),
        env: BTreeMap::new(),
        intent,
        task: None,
        gpus: Vec::new(),
    }
}

pub(crate) fn set(
    specs: impl IntoIterator<Item = InstanceSpec>,
) -> BTreeMap<InstanceId, InstanceSpec> {
    specs
        .into_iter()
        .map(|spec| (spec.id.clone(), spec))
        .collect()
}
