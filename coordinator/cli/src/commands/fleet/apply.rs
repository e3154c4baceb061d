//! Applying: plan, show, push and upload what is needed, then one request that does all or nothing.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use berth_model::api::{ChangeAction, FleetPlan, ServiceView};
use berth_model::id::ServiceName;
use berth_model::time::Span;

use super::super::job::{self, input};
use super::super::service::wait::{self, Limit};
use super::gather::{self, Gathered};
use super::show;
use crate::args::Apply;
use crate::client::Client;
use crate::failure::{self, nobody_reads};
use crate::output::{self, Format, Say};
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
    if wanted.wait {
        let say: Say = match format {
            Format::Table => output::line,
            // Standard output is the answer's alone.
            Format::Json | Format::Yaml => output::aside,
        };
        return wait_for(client, &gathered, &applied, wanted.timeout, say).await;
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

/// Waits until every declared service is ready, every declared job over, and what was pruned gone. One that
/// does not get there is told, and the others are waited for all the same.
async fn wait_for(
    client: &Client,
    gathered: &Gathered,
    applied: &FleetPlan,
    timeout: Span,
    say: Say,
) -> Result<ExitCode> {
    let limit = Limit::of(timeout);
    let fleet = &gathered.request.fleet;
    let mut all_well = true;
    for name in fleet.services.keys() {
        all_well &= got_there(until_ready(client, name, limit, say).await)?;
    }
    for name in fleet.jobs.keys() {
        all_well &= got_there(job::wait::until_over(client, name, limit, say).await)?;
    }
    let gone = applied.changes.iter();
    for change in gone.filter(|c| c.action == ChangeAction::Delete) {
        all_well &= got_there(until_gone(client, &change.subject, limit, say).await)?;
    }
    if all_well {
        return Ok(ExitCode::SUCCESS);
    }
    note("error: not everything is as declared");
    Ok(ExitCode::FAILURE)
}

async fn until_ready(
    client: &Client,
    name: &ServiceName,
    limit: Limit,
    say: Say,
) -> Result<ExitCode> {
    let view: ServiceView = client.get(&format!("/v1/services/{name}")).await?;
    wait::until_ready(client, &view, limit, say).await
}

/// Waits until a service or a job is gone. Labels and pools go at once.
async fn until_gone(client: &Client, subject: &str, limit: Limit, say: Say) -> Result<ExitCode> {
    match subject.split_once('/') {
        Some(("service", name)) => wait::until_gone(client, &name.parse()?, limit, say).await,
        Some(("job", name)) => {
            let code = job::delete::until_gone(client, &name.parse()?, limit).await?;
            if code == ExitCode::SUCCESS {
                say(&format!("{name} is gone"))?;
            }
            Ok(code)
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Whether it got there; what kept it from that is told. Errors: nobody reads what is told.
fn got_there(result: Result<ExitCode>) -> Result<bool> {
    match result {
        Ok(code) => Ok(code == ExitCode::SUCCESS),
        Err(error) if nobody_reads(&error) => Err(error),
        Err(error) => {
            failure::report(&error);
            Ok(false)
        }
    }
}
