//! What the unit tests of this crate share.

use std::collections::BTreeMap;

use berth_model::instance::{InstanceSpec, Intent};
use berth_model::manifest;

pub(crate) const MANIFEST: &str = "\
    [package]\nname = \"web\"\nversion = \"1.2.0\"\n\
    [model]\npath = \"model\"\nformat = \"custom\"\n\
    [module]\nkind = \"custom\"\ncommand = [\"bin/serve\", \"--port=${PORT}\", \"$PORT\"]\n\
    [module.env]\nA = \"manifest\"\nB = \"manifest\"\n\
    [health]\nhttp = \"/healthz\"\n";

pub(crate) fn spec(id: &str) -> InstanceSpec {
    InstanceSpec {
        id: id.parse().unwrap(),
        digest: format!("sha256:{}", "ab".repeat(32)).parse().unwrap(),
        blob: format!("blake3:{}", "cd".repeat(32)).parse().unwrap(),
        blob_bytes: 1,
        version: "1.2.0".parse().unwrap(),
        serial: 4,
        runtime: berth_model::node::RuntimeKind::Process,
        manifest: manifest::parse(MANIFEST, "berth.toml").unwrap(),
        env: BTreeMap::new(),
        intent: Intent::Run,
        task: None,
        gpus: Vec::new(),
    }
}
