//! Applying: plan, show, push and upload what is needed, then one request that does all or nothing.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use berth_model::api::{ChangeAction, FleetPlan, ServiceView};
use berth_model::id::ServiceName;
use berth_model::time::Span;

use super::super::job::input;
use super::super::service::wait;
use super::gather::{self, Gathered};
use super::show;
use crate::args::Apply;
use crate::client::Client;
use crate::output::{self, Format};
use crate::progress::note;

pub(super) async fn run(client: &Client, wanted: Apply) -> Result<ExitCode> {
    let mut gathered = gather::gather(client, &wanted.files).await?;
    let plan = super::planned(client, &gathered).await?;
    let seen = wanted.plan.as_deref().map(saved).transpose()?;
    let format = wanted.reading.output;
    let shown = show::plan(&plan, &gathered.places, output::colours());
    tell(format, &shown)?;
    let mut applied = plan;
    if !applied.is_empty() || seen.is_some() {
        let versions = seen.map_or_else(|| applied.versions.clone(), |seen| seen.versions);
        gathered.request.versions = Some(versions);
        let pushed = bring(client, &gathered, &applied).await?;
        let answer = client.post("/v1/apply", &gathered.request).await;
        let done: FleetPlan = answer.map_err(|error| gather::placed(error, &gathered.places))?;
        applied = with_models(done, applied, pushed);
        tell(format, &show::done(&applied))?;
    }
    if format != Format::Table {
        output::show(format, &applied, |_| String::new())?;
    }
    if wanted.waiting.wait {
        return wait_for(client, &gathered, &applied, wanted.waiting.timeout).await;
    }
    Ok(ExitCode::SUCCESS)
}

/// What people read; programs get the answer alone.
fn tell(format: Format, text: &str) -> Result<()> {
    if format == Format::Table {
        output::print(text)?;
    }
    Ok(())
}

/// A plan that was kept.
fn saved(file: &Path) -> Result<FleetPlan> {
    let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| {
        format!(
            "{} is no plan: make one with `berth plan --save {}`",
            file.display(),
            file.display()
        )
    })
}

/// Registers packages and uploads inputs that the plan needs. That changes nothing that runs; what is there
/// already is not sent again. Answers whether anything was registered.
async fn bring(client: &Client, gathered: &Gathered, plan: &FleetPlan) -> Result<bool> {
    let creates = |subject: String| {
        let mut changes = plan.changes.iter();
        changes.any(|c| c.subject == subject && c.action == ChangeAction::Create)
    };
    let mut pushed = false;
    for package in &gathered.packages {
        if creates(format!("model/{}", package.name)) {
            package
                .push(client)
                .await
                .with_context(|| format!("cannot push {}", package.name))?;
            pushed = true;
        }
    }
    for input in &gathered.inputs {
        if creates(format!("job/{}", input.job)) {
            input::send(client, &input.input)
                .await
                .with_context(|| format!("cannot upload the input of job {}", input.job))?;
        }
    }
    Ok(pushed)
}

/// What was done, with the models that were registered before.
fn with_models(mut done: FleetPlan, planned: FleetPlan, pushed: bool) -> FleetPlan {
    if pushed {
        let models = planned.changes.into_iter();
        let models = models.filter(|c| c.subject.starts_with("model/"));
        let later = std::mem::take(&mut done.changes);
        done.changes = models.chain(later).collect();
    }
    done
}

/// Waits until every declared service is ready and every pruned one is gone.
async fn wait_for(
    client: &Client,
    gathered: &Gathered,
    applied: &FleetPlan,
    timeout: Span,
) -> Result<ExitCode> {
    let until = Instant::now() + timeout.0;
    let left = || Span(until.saturating_duration_since(Instant::now()));
    let mut failed = false;
    for name in gathered.request.fleet.services.keys() {
        let view: ServiceView = client.get(&format!("/v1/services/{name}")).await?;
        failed |= wait::until_ready(client, &view, left()).await? != ExitCode::SUCCESS;
    }
    for change in &applied.changes {
        let gone = change.subject.strip_prefix("service/");
        let gone = gone.filter(|_| change.action == ChangeAction::Delete);
        let Some(name) = gone.and_then(|name| ServiceName::new(name).ok()) else {
            continue;
        };
        failed |= wait::until_gone(client, &name, left()).await? != ExitCode::SUCCESS;
    }
    if failed {
        note("error: not everything is as declared yet; it goes on by itself");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
