//! Logs: the lines of a service or an instance as server-sent events.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use berth_logs::{Cursor, Lines, LogStore, Query as Wanted, Scope};
use berth_model::id::{InstanceId, JobName, ServiceName};
use berth_model::problem::Problem;
use berth_model::time::Span;
use serde::Deserialize;
use tokio::time::Instant;

use super::extract::Query;
use super::failure::Failure;
use super::stream::{self, Sender};
use crate::control::Command;
use crate::edge::Edge;

pub(super) const PARAMETERS: &[(&str, &str)] = &[
    (
        "service",
        "All instances of this service, or all tasks of this job; or",
    ),
    ("instance", "one instance."),
    (
        "follow",
        "true: go on with the lines that come; those of a job end with the job.",
    ),
    (
        "since",
        "Only lines of this time or later: milliseconds since the Unix epoch, or a duration back from now as in 10m.",
    ),
    ("grep", "Only lines that match this regular expression."),
    (
        "tail",
        "Of the lines that are there already, only the last ones.",
    ),
    (
        "cursor",
        "Go on after this place: the id of an event that was received. As Last-Event-ID.",
    ),
];

/// Largest compiled regular expression, in bytes of memory.
const MAX_REGEX: usize = 1 << 20;

/// The cursor names every stream, so it is not sent with each line of a long listing.
const CURSOR_EVERY: Duration = Duration::from_millis(500);

/// Whether a job has ended is looked at this often without news.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Parameters {
    service: Option<ServiceName>,
    instance: Option<InstanceId>,
    follow: bool,
    since: Option<String>,
    grep: Option<String>,
    tail: Option<usize>,
    cursor: Option<String>,
}

pub(super) async fn read(
    State(edge): State<Arc<Edge>>,
    headers: HeaderMap,
    Query(query): Query<Parameters>,
) -> Result<Response, Failure> {
    let wanted = wanted(&query)?;
    let resumed = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok())
        .or(query.cursor.as_deref());
    let cursor = resumed
        .map(|text| {
            text.parse::<Cursor>()
                .map_err(|error| Failure::bad_request(error.to_string()))
        })
        .transpose()?;
    let job = known(&edge, &wanted.scope).await?.filter(|_| query.follow);
    let follow = query.follow;
    let reading = Reading {
        lines: match follow {
            true => edge.logs.follow(wanted.clone(), cursor.clone()),
            false => edge.logs.read(wanted.clone()),
        },
        wanted,
        cursor: cursor.unwrap_or_default(),
        follow,
    };
    Ok(stream::events(
        &edge.shutdown.clone(),
        move |sender| async move { reading.send(&edge, &sender, job).await },
    ))
}

/// Refuses names that neither control nor the logs know: most likely a slip. Answers with the job if it is
/// one's name.
async fn known(edge: &Edge, scope: &Scope) -> Result<Option<JobName>, Failure> {
    let service = match scope {
        Scope::Service(service) => service.clone(),
        Scope::Instance(instance) => instance.slot.service.clone(),
    };
    let answer = edge
        .control
        .ask(|reply| Command::Service(service, reply))
        .await;
    let unknown = match (answer, scope) {
        (Ok(_), Scope::Service(_)) => return Ok(None),
        (Ok(view), Scope::Instance(instance)) => {
            if view.instances.iter().any(|it| it.status.id == *instance) {
                return Ok(None);
            }
            Problem::not_found(format!(
                "there is no instance {instance}, and there are no logs of one"
            ))
        }
        (Err(problem), scope) if problem.status == 404 => match job(edge, scope).await? {
            Some(job) => return Ok(Some(job)),
            None => problem,
        },
        (Err(problem), _) => return Err(problem.into()),
    };
    // What has gone has its logs still, until their time is over.
    let probe = Wanted {
        limit: Some(1),
        ..Wanted::of(scope.clone())
    };
    match edge.logs.read(probe).next().await {
        Some(_) => Ok(None),
        None => Err(unknown.into()),
    }
}

/// The job of that name, if there is one.
async fn job(edge: &Edge, scope: &Scope) -> Result<Option<JobName>, Problem> {
    let Scope::Service(service) = scope else {
        return Ok(None);
    };
    let job = JobName::from(service);
    let name = job.clone();
    match edge.control.ask(|reply| Command::Job(name, reply)).await {
        Ok(_) => Ok(Some(job)),
        Err(problem) if problem.status == 404 => Ok(None),
        Err(problem) => Err(problem),
    }
}

/// Returns when the job has ended and every line of it is here, or it is gone; without a job never.
async fn told(edge: &Edge, job: Option<JobName>) {
    let Some(job) = job else {
        return std::future::pending().await;
    };
    let mut changes = edge.control.changes();
    loop {
        changes.mark_unchanged();
        let name = job.clone();
        let answer = edge
            .control
            .ask(|reply| Command::JobTold(name, reply))
            .await;
        if !matches!(answer, Ok(false)) {
            return;
        }
        // Leases end without news.
        let _ = tokio::time::timeout(LOOK_AGAIN, changes.changed()).await;
    }
}

/// What is read, and for whom.
struct Reading {
    lines: Lines,
    wanted: Wanted,
    /// Where the client came back at.
    cursor: Cursor,
    follow: bool,
}

impl Reading {
    /// Sends the lines; those of a job end with the job.
    async fn send(mut self, edge: &Edge, sender: &Sender, job: Option<JobName>) -> Option<()> {
        let mut ended = std::pin::pin!(told(edge, job));
        let mut sent = None::<Instant>;
        loop {
            let next = tokio::select! {
                next = self.lines.next() => next,
                () = &mut ended, if self.follow => {
                    self.finish(&edge.logs);
                    continue;
                }
                () = sender.closed() => return None,
            };
            match next {
                Some(Ok(line)) => {
                    let due = self.follow && sent.is_none_or(|at| at.elapsed() >= CURSOR_EVERY);
                    let id = due.then(|| self.lines.cursor().to_string());
                    if due {
                        sent = Some(Instant::now());
                    }
                    sender.json("line", id, &line).await?;
                }
                Some(Err(error)) => {
                    let error = crate::chain(&error);
                    tracing::warn!(error, "a log cannot be read");
                    let problem = Problem::internal(error);
                    sender.json("problem", None, &problem).await?;
                }
                None => return sender.json("end", None, &serde_json::json!({})).await,
            }
        }
    }

    /// From now on only what is here already and was not sent.
    fn finish(&mut self, logs: &LogStore) {
        self.follow = false;
        let reached = self.lines.cursor();
        let nothing = reached == Cursor::default();
        let from = if nothing {
            self.cursor.clone()
        } else {
            reached
        };
        let wanted = Wanted {
            tail: self.wanted.tail.filter(|_| from == Cursor::default()),
            ..self.wanted.clone()
        };
        self.lines = logs.rest(wanted, from);
    }
}

fn wanted(query: &Parameters) -> Result<Wanted, Failure> {
    let scope = match (&query.service, &query.instance) {
        (Some(service), None) => Scope::Service(service.clone()),
        (None, Some(instance)) => Scope::Instance(instance.clone()),
        _ => {
            return Err(Failure::bad_request(
                "say either service=NAME or instance=SERVICE.REVISION.ORDINAL.ATTEMPT",
            ));
        }
    };
    let grep = query
        .grep
        .as_deref()
        .map(|text| {
            regex::RegexBuilder::new(text)
                .size_limit(MAX_REGEX)
                .build()
                .map_err(|error| Failure::bad_request(format!("grep: {error}")))
        })
        .transpose()?;
    Ok(Wanted {
        since: query.since.as_deref().map(since).transpose()?,
        grep,
        tail: query.tail,
        ..Wanted::of(scope)
    })
}

/// Unix nanoseconds.
fn since(text: &str) -> Result<u64, Failure> {
    if let Ok(milliseconds) = text.parse::<u64>() {
        return Ok(milliseconds.saturating_mul(1_000_000));
    }
    let span: Span = text
        .parse()
        .map_err(|error| Failure::bad_request(format!("since: {error}")))?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let then = now.saturating_sub(span.0);
    Ok(u64::try_from(then.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<Wanted, Failure> {
        let uri = format!("/v1/logs?{query}").parse().unwrap();
        let axum::extract::Query(parameters) =
            axum::extract::Query::<Parameters>::try_from_uri(&uri).unwrap();
        wanted(&parameters)
    }

    #[test]
    fn queries_are_read_and_wrong_ones_say_why() {
        let good = parse("service=web&since=1000&tail=5&grep=a%2Bb").unwrap();
        assert_eq!(good.since, Some(1_000_000_000));
        assert_eq!(good.tail, Some(5));
        assert_eq!(good.grep.unwrap().as_str(), "a+b");
        assert!(
            parse("instance=web.1.0.1&since=10m")
                .unwrap()
                .since
                .unwrap()
                > 1_000_000_000
        );
        for bad in [
            "",
            "service=web&instance=web.1.0.1",
            "service=web&since=yesterday",
            "service=web&grep=(",
            "service=web&grep=(a{1000}){1000}",
        ] {
            assert_eq!(parse(bad).unwrap_err().0.status, 400, "{bad}");
        }
    }
}
