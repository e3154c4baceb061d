//! `berth plan`, `berth apply`, `berth export`: fleet files.

mod apply;
mod export;
mod files;
mod gather;
mod local;
mod show;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use berth_model::api::{FleetPlan, FleetRequest};

use self::gather::Gathered;
use crate::args::{Apply, Export, FleetFiles, Plan};
use crate::client::Client;
use crate::failure::Usage;
use crate::output;

/// What `berth plan --exit-code` ends with if there is something to do; 1 and 2 mean failures.
const SOMETHING_TO_DO: u8 = 3;

pub(super) async fn plan(client: &Client, wanted: Plan) -> Result<ExitCode> {
    let gathered = gather::gather(client, &wanted.files).await?;
    let plan = planned(client, &gathered).await?;
    if let Some(file) = &wanted.save {
        let text = serde_json::to_vec_pretty(&plan)?;
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    output::show(wanted.reading.output, &plan, |_| {
        show::plan(&plan, &gathered.places, output::colours())
    })?;
    if wanted.exit_code && !plan.changes.is_empty() {
        return Ok(ExitCode::from(SOMETHING_TO_DO));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn apply(client: &Client, wanted: Apply) -> Result<ExitCode> {
    apply::run(client, wanted).await
}

pub(super) async fn export(client: &Client, wanted: Export) -> Result<()> {
    export::run(client, wanted).await
}

/// Asks the coordinator what would change. Its mistakes get their places in the files.
async fn planned(client: &Client, gathered: &Gathered) -> Result<FleetPlan> {
    let answer = client.post("/v1/plan", &gathered.request).await;
    answer.map_err(|error| gather::placed(error, &gathered.places))
}

/// What the files and the options ask for, without the files' content.
fn request(files: &FleetFiles) -> Result<FleetRequest> {
    let stdin = files.files.iter().filter(|f| f.as_os_str() == "-").count();
    if stdin > 1 {
        return Err(Usage("standard input (-) can be read only once".to_owned()).into());
    }
    Ok(FleetRequest {
        prune: files.prune,
        adopt: files.adopt,
        ..FleetRequest::default()
    })
}
