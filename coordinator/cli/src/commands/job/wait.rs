//! Waiting for a job that is declared in a fleet file: for its end, without its lines.

use std::process::ExitCode;

use anyhow::Result;
use berth_model::api::{JobStatus, JobView};
use berth_model::id::JobName;
use berth_model::time::Span;

use super::{follow, one};
use crate::client::Client;
use crate::commands::service::wait::Limit;
use crate::output::Say;
use crate::progress::note;

/// Waits until the job is over, and tells so by `say`. One that fails is a failure, and so is one that is not
/// over in time.
pub(in super::super) async fn until_over(
    client: &Client,
    job: &JobName,
    limit: Limit,
    say: Say,
) -> Result<ExitCode> {
    let now = one(client, job).await?;
    let view = if now.state.is_over() {
        now
    } else {
        let over = tokio::time::timeout_at(limit.until, over(client, job));
        let Ok(view) = over.await else {
            note(&not_over(&one(client, job).await?, limit.whole));
            return Ok(ExitCode::FAILURE);
        };
        view?
    };
    if view.state == JobStatus::Succeeded {
        say(&succeeded(&view))?;
        return Ok(ExitCode::SUCCESS);
    }
    note(&follow::why(&view));
    Ok(ExitCode::FAILURE)
}

/// The job once it is over; meanwhile how far it is.
async fn over(client: &Client, job: &JobName) -> Result<JobView> {
    tokio::select! {
        view = follow::ended(client, job) => view,
        told = follow::tell(client, job) => match told? {},
    }
}

fn succeeded(view: &JobView) -> String {
    format!(
        "{} has succeeded: {} of {} shards; `berth job output {}` has what it wrote",
        view.name, view.done, view.completions, view.name
    )
}

fn not_over(view: &JobView, timeout: Span) -> String {
    let mut text = format!(
        "error: job {} is not over after {timeout}: {} of {} shards done, {} running",
        view.name, view.done, view.completions, view.running
    );
    for reason in &view.reasons {
        text.push_str(&format!("\n  {reason}"));
    }
    text.push_str(&format!(
        "\nIt goes on by itself; see `berth job show {}`.",
        view.name
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_told_and_why_there_is_none() {
        let mut view = super::super::show::tests::view();
        assert_eq!(
            not_over(&view, Span::secs(300)),
            "error: job score is not over after 5m: 1 of 3 shards done, 1 running\n  \
             1 instance has no node: 2 nodes: 2 taken (exclusive)\n\
             It goes on by itself; see `berth job show score`."
        );
        view.done = 3;
        assert_eq!(
            succeeded(&view),
            "score has succeeded: 3 of 3 shards; `berth job output score` has what it wrote"
        );
    }
}
