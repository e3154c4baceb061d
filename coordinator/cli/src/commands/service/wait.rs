//! Waiting for a service to be as wanted, with the reason when it does not get there.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use berth_model::api::{ServiceState, ServiceView};
use berth_model::id::ServiceName;
use berth_model::problem::Problem;
use berth_model::time::Span;
use reqwest::Method;

use crate::client::Client;
use crate::output;
use crate::progress::{Instances, note};
use crate::sse::Reader;

/// Pause before a broken stream is opened again.
const AGAIN: Duration = Duration::from_millis(300);

/// Follows the service until the revision in `wanted` (or a later one) is ready with as many replicas.
pub(crate) async fn until_ready(
    client: &Client,
    wanted: &ServiceView,
    timeout: Span,
) -> Result<ExitCode> {
    let mut last = wanted.clone();
    let reached = tokio::time::timeout(
        timeout.0,
        follow(client, &wanted.name, &mut last, |view| {
            view.is_some_and(|v| v.state == ServiceState::Ready && v.revision >= wanted.revision)
        }),
    )
    .await;
    match reached {
        Ok(done) => {
            done?;
            output::line(&format!(
                "{} is ready: {} of {} instances of {}@{} (revision {})",
                last.name, last.ready, last.replicas, last.model, last.version, last.revision
            ))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(_) => {
            note(&not_there(&last, timeout));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Follows the service until it is gone.
pub(crate) async fn until_gone(
    client: &Client,
    name: &ServiceName,
    timeout: Span,
) -> Result<ExitCode> {
    let mut last = match client
        .get::<ServiceView>(&format!("/v1/services/{name}"))
        .await
    {
        Ok(view) => view,
        Err(error) if is_gone(&error) => return gone(name),
        Err(error) => return Err(error),
    };
    let reached = tokio::time::timeout(
        timeout.0,
        follow(client, name, &mut last, |view| view.is_none()),
    )
    .await;
    match reached {
        Ok(done) => {
            done?;
            gone(name)
        }
        Err(_) => {
            note(&not_there(&last, timeout));
            Ok(ExitCode::FAILURE)
        }
    }
}

fn gone(name: &ServiceName) -> Result<ExitCode> {
    output::line(&format!("{name} is gone"))?;
    Ok(ExitCode::SUCCESS)
}

fn is_gone(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<Problem>()
        .is_some_and(|problem| problem.status == 404)
}

/// Follows until `done` says so of a view, or of none for a service that is gone. Goes on after a
/// coordinator's restart; the caller sets the limit.
async fn follow(
    client: &Client,
    name: &ServiceName,
    last: &mut ServiceView,
    done: impl Fn(Option<&ServiceView>) -> bool,
) -> Result<()> {
    let mut bar = Instances::new(name.as_str());
    loop {
        match once(client, name, &mut bar, last, &done).await {
            Ok(true) => return Ok(()),
            Err(error) if is_gone(&error) && done(None) => return Ok(()),
            Err(error) if error.is::<Problem>() => return Err(error),
            // The stream broke off, or the coordinator is away: what was asked for still stands.
            Ok(false) | Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

async fn once(
    client: &Client,
    name: &ServiceName,
    bar: &mut Instances,
    last: &mut ServiceView,
    done: &impl Fn(Option<&ServiceView>) -> bool,
) -> Result<bool> {
    let request = client.request(Method::GET, &format!("/v1/services/{name}/watch"));
    let mut events = Reader::new(client.send(request).await?);
    while let Some(event) = events.next().await? {
        match event.name.as_str() {
            "service" => {
                let view: ServiceView = serde_json::from_str(&event.data)?;
                tell_progress(bar, last, &view);
                *last = view;
                if done(Some(last)) {
                    return Ok(true);
                }
            }
            "deleted" => {
                return if done(None) {
                    Ok(true)
                } else {
                    Err(deleted(name).into())
                };
            }
            _ => {}
        }
    }
    Ok(false)
}

fn deleted(name: &ServiceName) -> Problem {
    Problem::not_found(format!("{name} was deleted meanwhile"))
}

/// Tells how far it is: a bar on a terminal, a line for each change elsewhere.
fn tell_progress(bar: &mut Instances, before: &ServiceView, now: &ServiceView) {
    let why = now.reasons.first().cloned().unwrap_or_default();
    if bar.at(u64::from(now.ready), u64::from(now.replicas), &why) {
        return;
    }
    if before.ready != now.ready || before.reasons != now.reasons {
        let why = if why.is_empty() {
            why
        } else {
            format!(": {why}")
        };
        note(&format!(
            "{}: {} of {} ready{why}",
            now.name, now.ready, now.replicas
        ));
    }
}

/// Everything that stands in the way, for somebody who has to do something about it.
fn not_there(view: &ServiceView, timeout: Span) -> String {
    let mut text = format!(
        "error: {} is not as wanted after {timeout}: {}, {} of {} ready",
        view.name, view.state, view.ready, view.replicas
    );
    for reason in &view.reasons {
        text.push_str(&format!("\n  {reason}"));
    }
    for instance in &view.instances {
        if let Some(reason) = &instance.status.reason {
            text.push_str(&format!("\n  {}: {reason}", instance.status.id));
        }
        for line in &instance.status.last_lines {
            text.push_str(&format!("\n    | {line}"));
        }
    }
    text.push_str(&format!(
        "\nIt goes on by itself; see `berth service show {}`.",
        view.name
    ));
    text
}
