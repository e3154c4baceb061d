//! Following a job to its end: its lines on standard error, its output on standard output.

use std::convert::Infallible;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use berth_model::api::{JobStatus, JobView};
use berth_model::id::JobName;
use berth_model::problem::Problem;
use reqwest::Method;

use super::{one, output, show};
use crate::args::Logs;
use crate::client::Client;
use crate::commands::logs::{self, To};
use crate::output::Format;
use crate::progress::note;
use crate::sse::Reader;

/// Pause before a broken stream is opened again.
const AGAIN: Duration = Duration::from_millis(300);

pub(super) async fn run(client: &Client, created: &JobView) -> Result<ExitCode> {
    let name = &created.name;
    let wanted = Logs {
        subject: name.to_string(),
        follow: true,
        since: None,
        grep: None,
        tail: None,
        output: Format::Table,
    };
    // The lines end when the job has ended and every line of it has come.
    tokio::select! {
        streamed = logs::stream(client, &wanted, To::Stderr) => streamed?,
        told = tell(client, name) => match told? {},
    }
    let view = ended(client, name).await?;
    match view.state {
        JobStatus::Succeeded => output::print(client, &view).await,
        _ => {
            note(&why(&view));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The job once it is over, asked for again while the coordinator is away.
pub(super) async fn ended(client: &Client, name: &JobName) -> Result<JobView> {
    loop {
        match one(client, name).await {
            Ok(view) if view.state.is_over() => return Ok(view),
            Ok(view) if view.state == JobStatus::Deleting => return Err(deleted(name)),
            Ok(_) => tokio::time::sleep(AGAIN).await,
            Err(error) if logs::is_final(&error) => return Err(gone(error, name)),
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

/// Tells how far the job is and why not further, for as long as it is there.
pub(super) async fn tell(client: &Client, name: &JobName) -> Result<Infallible> {
    let mut last = String::new();
    loop {
        match watch(client, name, &mut last).await {
            Err(error) if logs::is_final(&error) => return Err(gone(error, name)),
            // The stream broke off, or the coordinator is away: the job goes on.
            Ok(()) | Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

async fn watch(client: &Client, name: &JobName, last: &mut String) -> Result<()> {
    let request = client.request(Method::GET, &format!("/v1/jobs/{name}/watch"));
    let mut events = Reader::new(client.send(request).await?);
    while let Some(event) = events.next().await? {
        match event.name.as_str() {
            "job" => {
                let view: JobView = serde_json::from_str(&event.data)?;
                let text = progress(&view);
                if text != *last {
                    note(&text);
                    *last = text;
                }
            }
            "deleted" => return Err(deleted(name)),
            _ => {}
        }
    }
    Ok(())
}

fn progress(view: &JobView) -> String {
    let why = view.reasons.first().filter(|_| !view.state.is_over());
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    let failed = match view.failed {
        0 => String::new(),
        n => format!(", {n} failed"),
    };
    format!(
        "{}: {} of {} shards done, {} running{failed}{why}",
        view.name, view.done, view.completions, view.running
    )
}

/// Why a job failed: the reason that decided it, and how the attempt ended that it is from.
pub(super) fn why(view: &JobView) -> String {
    let mut text = match &view.reason {
        Some(reason) => format!("error: job {} failed: {reason}", view.name),
        None => format!("error: job {} failed", view.name),
    };
    if let Some(failure) = view.failures.last() {
        text.push_str(show::failed(failure).trim_end());
    }
    text.push_str(&format!(
        "\n{} of {} shards are done; `berth logs {}` has every line",
        view.done, view.completions, view.name
    ));
    text
}

fn deleted(name: &JobName) -> anyhow::Error {
    Problem::not_found(format!("job {name} was deleted meanwhile")).into()
}

fn gone(error: anyhow::Error, name: &JobName) -> anyhow::Error {
    match error.downcast_ref::<Problem>() {
        Some(problem) if problem.status == 404 => deleted(name),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_decided_it_and_the_last_lines() {
        let mut view = show::tests::view();
        view.state = JobStatus::Failed;
        view.reason = Some(view.failures[0].reason.clone());
        assert_eq!(
            why(&view),
            "error: job score failed: task exited with code 3\n\
             score.1.1.1 failed: task exited with code 3\n  | reading\n  | no such  column\n\
             1 of 3 shards are done; `berth logs score` has every line"
        );
    }
}
