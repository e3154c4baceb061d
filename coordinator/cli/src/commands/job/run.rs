use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use berth_model::api::{CreateJob, JobView};
use berth_model::problem::Problem;

use super::{follow, input};
use crate::args::JobRun;
use crate::client::Client;
use crate::output;
use crate::progress::note;

/// How long a job whose answer was lost is asked for again, and the pause between.
const INSIST: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_millis(500);

pub(super) async fn run(client: &Client, wanted: JobRun) -> Result<ExitCode> {
    if let Some(input) = &wanted.input {
        std::fs::metadata(input).with_context(|| format!("cannot read {}", input.display()))?;
    }
    let input = match &wanted.input {
        Some(path) => Some(input::upload(client, path).await?),
        None => None,
    };
    let follow = wanted.follow;
    let body = CreateJob {
        model: wanted.model,
        name: wanted.name,
        request: Some(key()?),
        runtime: wanted.runtime,
        pool: wanted.pool,
        env: wanted.env.into_iter().collect(),
        completions: wanted.completions,
        parallelism: wanted.parallelism,
        retries: wanted.retries,
        deadline: wanted.deadline,
        input,
    };
    let view = create(client, &body).await?;
    let shards = if view.completions == 1 { "" } else { "s" };
    let told = format!(
        "{} runs {}@{} over {} shard{shards}",
        view.name, view.model, view.version, view.completions
    );
    if let Some(text) = &view.note {
        note(text);
    }
    if follow {
        // Standard output is for the job's own.
        note(&told);
        return follow::run(client, &view).await;
    }
    output::line(&told)?;
    Ok(ExitCode::SUCCESS)
}

/// Creates the job. An answer that does not come leaves open whether there is one: the same key again
/// tells, and makes no second job.
async fn create(client: &Client, body: &CreateJob) -> Result<JobView> {
    let until = Instant::now() + INSIST;
    loop {
        match client.post("/v1/jobs", body).await {
            Ok(view) => return Ok(view),
            Err(error) if !may_pass(&error) || Instant::now() >= until => return Err(error),
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

fn may_pass(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<Problem>() {
        Some(problem) => problem.status == 503,
        None => error.chain().any(|e| e.is::<reqwest::Error>()),
    }
}

/// What nobody else sends.
fn key() -> Result<String> {
    use std::io::Read;
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("cannot read /dev/urandom")?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}
