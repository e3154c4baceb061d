//! Counts what is asked of an API server, hears when it wants to be asked less, and sets every request a deadline.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use tower::{BoxError, Layer, Service};

/// How many requests of one kind were sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requests {
    /// As in RBAC: `create`, `delete`, `get`, `list`, `watch`.
    pub verb: &'static str,
    /// As in RBAC: `jobs`, `pods`, `pods/log`, `events`.
    pub resource: &'static str,
    /// How they ended.
    pub outcome: Outcome,
    /// How many.
    pub count: u64,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Done.
    Ok,
    /// 4xx: refused.
    Refused,
    /// 429.
    Throttled,
    /// 5xx.
    Failed,
    /// No answer.
    Unanswered,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Throttled => "throttled",
            Self::Failed => "failed",
            Self::Unanswered => "unanswered",
        })
    }
}

/// Verb and resource.
pub(crate) type Kind = (&'static str, &'static str);

#[derive(Debug, Default)]
struct Inner {
    counts: BTreeMap<(Kind, Outcome), u64>,
    not_before: Option<Instant>,
}

/// Told of the outcome of every request.
pub(crate) type Listener = Arc<dyn Fn(Kind, Outcome) + Send + Sync>;

/// Shared by all clients of a cluster, so that counts outlive a new kubeconfig.
#[derive(Clone)]
pub(crate) struct Meter {
    inner: Arc<Mutex<Inner>>,
    listener: Listener,
    deadline: Duration,
}

impl Meter {
    pub(crate) fn new(deadline: Duration, listener: Listener) -> Self {
        Self {
            inner: Arc::default(),
            listener,
            deadline,
        }
    }

    pub(crate) fn requests(&self) -> Vec<Requests> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner
            .counts
            .iter()
            .map(|(((verb, resource), outcome), count)| Requests {
                verb,
                resource,
                outcome: *outcome,
                count: *count,
            })
            .collect()
    }

    /// How long the API server wants to be left alone.
    pub(crate) fn pause(&self) -> Duration {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.not_before.map_or(Duration::ZERO, |at| {
            at.saturating_duration_since(Instant::now())
        })
    }

    fn record(&self, kind: Kind, outcome: Outcome, retry_after: Option<Duration>) {
        {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            *inner.counts.entry((kind, outcome)).or_default() += 1;
            if let Some(at) = retry_after.and_then(|wait| Instant::now().checked_add(wait)) {
                inner.not_before = Some(inner.not_before.map_or(at, |old| old.max(at)));
            }
        }
        (self.listener)(kind, outcome);
    }
}

/// The verb and resource of a request, as RBAC names them.
fn kind(method: &Method, path: &str, query: &str) -> Kind {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    // …/namespaces/NS/RESOURCE[/NAME[/SUBRESOURCE]]
    let at = segments
        .iter()
        .position(|s| *s == "namespaces")
        .map_or(0, |i| i + 2);
    let resource = match (segments.get(at), segments.get(at + 2)) {
        (Some(&"jobs"), _) => "jobs",
        (Some(&"pods"), Some(&"log")) => "pods/log",
        (Some(&"pods"), _) => "pods",
        (Some(&"events"), _) => "events",
        _ => "other",
    };
    let named = segments.len() > at + 1;
    let verb = match *method {
        Method::POST => "create",
        Method::DELETE => "delete",
        _ if query.split('&').any(|part| part == "watch=true") => "watch",
        _ if named => "get",
        _ => "list",
    };
    (verb, resource)
}

fn outcome(status: StatusCode) -> Outcome {
    match status {
        StatusCode::TOO_MANY_REQUESTS => Outcome::Throttled,
        s if s.is_server_error() => Outcome::Failed,
        s if s.is_client_error() => Outcome::Refused,
        _ => Outcome::Ok,
    }
}

/// Longest that a server's Retry-After is believed.
const MOST_PATIENCE: Duration = Duration::from_secs(60);

fn retry_after<B>(response: &Response<B>) -> Option<Duration> {
    let busy = [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::SERVICE_UNAVAILABLE,
    ];
    if !busy.contains(&response.status()) {
        return None;
    }
    let text = response
        .headers()
        .get(http::header::RETRY_AFTER)?
        .to_str()
        .ok()?;
    Some(Duration::from_secs(text.trim().parse().ok()?).min(MOST_PATIENCE))
}

impl<S> Layer<S> for Meter {
    type Service = Metered<S>;
    fn layer(&self, inner: S) -> Metered<S> {
        Metered {
            inner,
            meter: self.clone(),
        }
    }
}

/// A client's transport that is counted.
pub(crate) struct Metered<S> {
    inner: S,
    meter: Meter,
}

/// No answer in time; found by kind in the chain of causes.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {} s", .0.as_secs())]
pub(crate) struct NoAnswer(Duration);

impl<S, B> Service<Request<Body>> for Metered<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
    B: 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<B>, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let uri = request.uri();
        let kind = kind(
            request.method(),
            uri.path(),
            uri.query().unwrap_or_default(),
        );
        let meter = self.meter.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let Ok(answer) = tokio::time::timeout(meter.deadline, answer).await else {
                meter.record(kind, Outcome::Unanswered, None);
                return Err(NoAnswer(meter.deadline).into());
            };
            match &answer {
                Ok(response) => {
                    meter.record(kind, outcome(response.status()), retry_after(response));
                }
                Err(_) => meter.record(kind, Outcome::Unanswered, None),
            }
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_as_rbac_names_them() {
        let jobs = "/apis/batch/v1/namespaces/berth/jobs";
        let pods = "/api/v1/namespaces/berth/pods";
        for (method, path, query, expected) in [
            (Method::POST, jobs, "", ("create", "jobs")),
            (Method::GET, jobs, "limit=500", ("list", "jobs")),
            (Method::GET, jobs, "a=b&watch=true", ("watch", "jobs")),
            (
                Method::DELETE,
                "/apis/batch/v1/namespaces/berth/jobs/x",
                "",
                ("delete", "jobs"),
            ),
            (
                Method::GET,
                "/apis/batch/v1/namespaces/berth/jobs/x",
                "",
                ("get", "jobs"),
            ),
            (Method::GET, pods, "", ("list", "pods")),
            (
                Method::GET,
                "/api/v1/namespaces/berth/pods/x/log",
                "tailLines=9",
                ("get", "pods/log"),
            ),
            (
                Method::GET,
                "/api/v1/namespaces/berth/events",
                "watch=true",
                ("watch", "events"),
            ),
            (Method::GET, "/version", "", ("list", "other")),
        ] {
            assert_eq!(
                kind(&method, path, query),
                expected,
                "{method} {path}?{query}"
            );
        }
    }

    #[test]
    fn a_server_that_is_busy_is_left_alone_as_long_as_it_asks() {
        let busy = |code: u16, after: &str| {
            Response::builder()
                .status(code)
                .header("retry-after", after)
                .body(())
                .unwrap()
        };
        assert_eq!(retry_after(&busy(429, "2")), Some(Duration::from_secs(2)));
        assert_eq!(retry_after(&busy(503, "999999")), Some(MOST_PATIENCE));
        assert_eq!(retry_after(&busy(429, "soon")), None);
        assert_eq!(retry_after(&busy(200, "2")), None);

        let meter = Meter::new(Duration::from_secs(1), Arc::new(|_, _| ()));
        assert_eq!(meter.pause(), Duration::ZERO);
        meter.record(
            ("create", "jobs"),
            Outcome::Throttled,
            Some(Duration::from_secs(30)),
        );
        meter.record(
            ("create", "jobs"),
            Outcome::Throttled,
            Some(Duration::from_secs(1)),
        );
        assert!(meter.pause() > Duration::from_secs(20));
        assert_eq!(meter.requests()[0].count, 2);
    }
}
