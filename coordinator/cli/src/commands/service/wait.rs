//! Waiting for a service to be as wanted, with the reason when it does not get there.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use berth_model::api::{ServiceState, ServiceView};
use berth_model::id::ServiceName;
use berth_model::problem::Problem;
use berth_model::time::Span;
use reqwest::Method;
use tokio::time::Instant;

use crate::client::Client;
use crate::output::Say;
use crate::progress::{Instances, note};
use crate::sse::Reader;

/// Pause before a broken stream is opened again.
const AGAIN: Duration = Duration::from_millis(300);

/// How long to wait: several things may share it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    /// As it was asked for.
    pub(crate) whole: Span,
    /// When it is over.
    pub(crate) until: Instant,
}

impl Limit {
    /// From now on.
    pub(crate) fn of(whole: Span) -> Self {
        Self {
            whole,
            until: Instant::now() + whole.0,
        }
    }
}

/// Follows the service until the revision in `wanted` (or a later one) is ready with as many replicas, and
/// tells so by `say`.
pub(crate) async fn until_ready(
    client: &Client,
    wanted: &ServiceView,
    limit: Limit,
    say: Say,
) -> Result<ExitCode> {
    let mut last = wanted.clone();
    let is_ready = |view: Option<&ServiceView>| {
        view.is_some_and(|v| v.state == ServiceState::Ready && v.revision >= wanted.revision)
    };
    let reached = if is_ready(Some(&last)) {
        Ok(Ok(()))
    } else {
        let following = follow(client, &wanted.name, &mut last, is_ready);
        tokio::time::timeout_at(limit.until, following).await
    };
    match reached {
        Ok(done) => {
            done?;
            say(&format!(
                "{} is ready: {} of {} instances of {}@{} (revision {})",
                last.name, last.ready, last.replicas, last.model, last.version, last.revision
            ))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(_) => {
            note(&not_there(&last, limit.whole));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Follows the service until it is gone.
pub(crate) async fn until_gone(
    client: &Client,
    name: &ServiceName,
    limit: Limit,
    say: Say,
) -> Result<ExitCode> {
    let mut last = match client
        .get::<ServiceView>(&format!("/v1/services/{name}"))
        .await
    {
        Ok(view) => view,
        Err(error) if is_gone(&error) => return gone(name, say),
        Err(error) => return Err(error),
    };
    let following = follow(client, name, &mut last, |view| view.is_none());
    match tokio::time::timeout_at(limit.until, following).await {
        Ok(done) => {
            done?;
            gone(name, say)
        }
        Err(_) => {
            note(&not_there(&last, limit.whole));
            Ok(ExitCode::FAILURE)
        }
    }
}

fn gone(name: &ServiceName, say: Say) -> Result<ExitCode> {
    say(&format!("{name} is gone"))?;
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
    let mut progress = Told {
        bar: Instances::new(name.as_str()),
        told: String::new(),
    };
    loop {
        match once(client, name, &mut progress, last, &done).await {
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
    progress: &mut Told,
    last: &mut ServiceView,
    done: &impl Fn(Option<&ServiceView>) -> bool,
) -> Result<bool> {
    let request = client.request(Method::GET, &format!("/v1/services/{name}/watch"));
    let mut events = Reader::new(client.send(request).await?);
    while let Some(event) = events.next().await? {
        match event.name.as_str() {
            "service" => {
                let view: ServiceView = serde_json::from_str(&event.data)?;
                *last = view;
                if done(Some(last)) {
                    return Ok(true);
                }
                progress.tell(last);
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

/// How far it is: a bar on a terminal, a line for each change elsewhere.
struct Told {
    bar: Instances,
    /// The last line.
    told: String,
}

impl Told {
    fn tell(&mut self, now: &ServiceView) {
        let why = now.reasons.first().map_or("", String::as_str);
        if self
            .bar
            .at(u64::from(now.ready), u64::from(now.replicas), why)
        {
            return;
        }
        let line = so_far(now);
        if line != self.told {
            note(&line);
            self.told = line;
        }
    }
}

fn so_far(view: &ServiceView) -> String {
    let why = view.reasons.first().map(|why| format!(": {why}"));
    format!(
        "{}: {} of {} ready{}",
        view.name,
        view.ready,
        view.replicas,
        why.unwrap_or_default()
    )
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
