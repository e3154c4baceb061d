use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use berth_model::api::JobView;
use berth_model::id::JobName;
use berth_model::node::RuntimeKind;
use berth_model::problem::Problem;
use berth_model::time::Span;
use tokio::time::Instant;

use super::one;
use crate::client::Client;
use crate::commands::logs;
use crate::commands::service::wait::Limit;
use crate::output;
use crate::progress::note;

/// Pause between looks.
const LOOK: Duration = Duration::from_millis(200);

/// Deletes and waits until the job is gone.
pub(super) async fn run(client: &Client, job: &JobName, timeout: Span) -> Result<ExitCode> {
    let before: JobView = client.delete(&format!("/v1/jobs/{job}")).await?;
    let code = until_gone(client, job, Limit::of(timeout)).await?;
    if code == ExitCode::SUCCESS {
        output::line(&removed(&before))?;
    }
    Ok(code)
}

/// Waits until a job that was deleted is gone.
pub(in super::super) async fn until_gone(
    client: &Client,
    job: &JobName,
    limit: Limit,
) -> Result<ExitCode> {
    let mut last = 0;
    loop {
        match one(client, job).await {
            Ok(view) => {
                if view.running != last {
                    note(&format!("{job}: {} tasks still stop", view.running));
                    last = view.running;
                }
                if Instant::now() >= limit.until {
                    note(&not_gone(&view, limit.whole));
                    return Ok(ExitCode::FAILURE);
                }
            }
            Err(error) if is_gone(&error) => return Ok(ExitCode::SUCCESS),
            Err(error) if logs::is_final(&error) => return Err(error),
            // The coordinator is away: what was asked for still stands.
            Err(error) if Instant::now() >= limit.until => return Err(error),
            Err(_) => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn is_gone(error: &anyhow::Error) -> bool {
    let problem = error.downcast_ref::<Problem>();
    problem.is_some_and(|problem| problem.status == 404)
}

fn count(n: u32, what: &str) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{n} {what}{s}")
}

/// What is gone with the job.
fn removed(before: &JobView) -> String {
    let there = match before.runtime {
        RuntimeKind::Kubernetes => "; its Kubernetes Job and all its Pods are deleted",
        RuntimeKind::Process | RuntimeKind::Docker => "",
    };
    format!(
        "{} is gone: {} stopped, {} and its logs removed{there}",
        before.name,
        count(before.running, "task"),
        count(before.done, "output"),
    )
}

fn not_gone(view: &JobView, timeout: Span) -> String {
    let mut text = format!(
        "error: {} is not gone after {timeout}: {} left",
        view.name,
        count(view.running, "task")
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
    fn it_is_said_what_was_removed() {
        assert_eq!(
            removed(&super::super::show::tests::view()),
            "score is gone: 1 task stopped, 1 output and its logs removed"
        );
        let mut view = super::super::show::tests::view();
        view.runtime = RuntimeKind::Kubernetes;
        assert!(removed(&view).ends_with("; its Kubernetes Job and all its Pods are deleted"));
    }
}
