//! What there is, as a fleet file.

use anyhow::Result;
use berth_model::api::Fleet;
use berth_model::fleetfile;

use crate::args::{Export, ExportFormat};
use crate::client::Client;
use crate::output;

pub(super) async fn run(client: &Client, wanted: Export) -> Result<()> {
    let path = match &wanted.fleet {
        Some(fleet) => format!("/v1/export?fleet={fleet}"),
        None => "/v1/export".to_owned(),
    };
    let fleet: Fleet = client.get(&path).await?;
    let text = match wanted.output {
        ExportFormat::Toml => fleetfile::write(&fleet),
        ExportFormat::Json => serde_json::to_string_pretty(&fleet)? + "\n",
        ExportFormat::Yaml => serde_norway::to_string(&fleet)?,
    };
    output::print(&text)
}
