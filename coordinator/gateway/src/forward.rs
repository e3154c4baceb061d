//! Sends a request to an instance, and to another one if that may be done and is needed.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::header::{CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use rand::Rng;

use crate::body::{AttemptBody, Served, UpstreamBody};
use crate::exchange::Exchange;
use crate::headers::{self, BERTH_INSTANCE, BERTH_REVISION, BERTH_SERVICE};
use crate::path::Action;
use crate::patience::{AWAY, Patience};
use crate::refusal::Refusal;
use crate::routing::{Endpoint, Lease, Target, Tried};
use crate::upstream::{Connection, Failure};

/// Gets a response's head. Until there is one, no byte of a response has reached the client, so a
/// request goes to another instance if it was not sent at all, or if it may be sent twice. With no
/// other left it waits for a relay that is being started again.
pub(crate) async fn forward(exchange: &Exchange<'_>) -> Result<Response<UpstreamBody>, Refusal> {
    let mut tried = Tried::default();
    let mut last: Option<Refusal> = None;
    let mut left = exchange.worker.shared.config.attempts.max(1);
    let mut patience = Patience::default();
    // Where to wait, if the last one that failed may be well in a moment.
    let mut hope = None;
    loop {
        let placed = match (left, last.take()) {
            (0, Some(refusal)) => Err(refusal),
            (_, last) => {
                let placed = exchange.place(&tried).await;
                placed.map_err(|refusal| last.unwrap_or(refusal))
            }
        };
        let lease = match placed {
            Ok(lease) => lease,
            Err(refusal) => match hope.take() {
                Some(queue) if patience.wait(exchange, &queue).await => {
                    tried = Tried::default();
                    left = left.max(1);
                    last = Some(refusal);
                    continue;
                }
                _ => return Err(refusal),
            },
        };
        let target = Arc::clone(&lease.target);
        let probe = lease.probe;
        let failure = match send(exchange, lease).await {
            Ok(response) => return Ok(response),
            Err(failure) => failure,
        };
        if let Some(refusal) = exchange.client_fault() {
            return Err(refusal);
        }
        note(exchange, &target, probe, &failure, &mut tried);
        let refusal = Refusal::upstream(format!("Instance {}: {failure}", target.instance.id));
        let again = (!failure.is_sent() || exchange.retryable()) && exchange.body.can_begin_anew();
        left -= 1;
        hope = is_passing(exchange, &failure, &target, left)
            .then(|| Arc::clone(&target.revision.queue));
        if !again || (left == 0 && hope.is_none()) {
            return Err(refusal);
        }
        target.revision.metrics.retry(exchange.worker.index);
        last = Some(refusal);
    }
}

/// Whether what failed may be well in a moment: a relay that is started again, and what was lost on the way through it.
fn is_passing(exchange: &Exchange<'_>, failure: &Failure, target: &Target, left: u32) -> bool {
    match failure {
        Failure::Away(_) => {
            let now = exchange.worker.shared.millis(Instant::now());
            target.instance.failing_for(now) < AWAY
        }
        // If the instance itself has gone, its relay says so the next time.
        Failure::Broken { .. } => matches!(target.endpoint, Endpoint::Relay(_)) && left > 0,
        _ => false,
    }
}

/// One attempt. Kept connections that turn out closed before a byte was sent do not count.
async fn send(exchange: &Exchange<'_>, lease: Lease) -> Result<Response<UpstreamBody>, Failure> {
    let worker = exchange.worker;
    let target = &*lease.target;
    // What cannot be sent again must not meet a connection that was just closed.
    let careful = !exchange.retryable();
    let mut now = exchange.started;
    loop {
        let mut connection = match worker.pool.take(target, now, careful) {
            Some(kept) => kept,
            // Boxed because it is large and rare, and every request carries room for it otherwise.
            None => Box::pin(worker.connector.connect(&target.endpoint)).await?,
        };
        let request = request(exchange, target)?;
        let failure = match connection.send(request).await {
            Ok(response) => return answered(exchange, lease, connection, response),
            Err(failure) => failure,
        };
        if let Failure::Broken {
            sent, kept: true, ..
        } = failure
        {
            if !sent && exchange.body.can_begin_anew() {
                now = Instant::now();
                continue;
            }
            worker.pool.clear(target);
        }
        return Err(failure);
    }
}

/// The request for one instance.
fn request(exchange: &Exchange<'_>, target: &Target) -> Result<Request<AttemptBody>, Failure> {
    let uri = uri(exchange, target).map_err(|e| Failure::Broken {
        reason: format!("the path cannot be passed on: {e}"),
        sent: false,
        kept: false,
    })?;
    let mut headers = exchange.worker.spare_headers();
    let given = exchange.given;
    exchange.said.to_instance(given, &target.host, &mut headers);
    if exchange.body.is_unsized() {
        // Said explicitly, or hyper would drop the body of a GET.
        headers.remove(CONTENT_LENGTH);
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let mut request = Request::new(exchange.body.attempt());
    *request.method_mut() = exchange.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Where the module expects the request.
fn uri(exchange: &Exchange<'_>, target: &Target) -> Result<Uri, http::Error> {
    let root = PathAndQuery::from_static("/");
    let whole = exchange.uri.path_and_query().unwrap_or(&root);
    Ok(Uri::from(
        match (exchange.call.action, &target.revision.predict_path) {
            (Action::Free { prefix }, _) => match &whole.as_str()[prefix..] {
                rest if rest.starts_with('/') => PathAndQuery::try_from(rest)?,
                rest => PathAndQuery::try_from(format!("/{rest}"))?,
            },
            (Action::Predict, Some(path)) => match whole.query() {
                Some(query) => PathAndQuery::try_from(format!("{path}?{query}"))?,
                None => PathAndQuery::try_from(path.as_str())?,
            },
            _ => whole.clone(),
        },
    ))
}

fn answered(
    exchange: &Exchange<'_>,
    lease: Lease,
    connection: Connection,
    response: Response<Incoming>,
) -> Result<Response<UpstreamBody>, Failure> {
    let (mut parts, incoming) = response.into_parts();
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Failure::Broken {
            reason: "it switched protocols without being asked to".to_owned(),
            sent: true,
            kept: false,
        });
    }
    let target = &lease.target;
    target.instance.succeeded();
    parts.version = Version::HTTP_11;
    let headers = &mut parts.headers;
    headers::strip_hop_by_hop(headers);
    // With `x-request-id`, and room for `connection`.
    headers.reserve(5);
    headers.insert(BERTH_SERVICE, target.revision.service.clone());
    headers.insert(BERTH_REVISION, target.revision.number.clone());
    headers.insert(BERTH_INSTANCE, target.id.clone());
    let served = Served {
        worker: Rc::clone(exchange.worker),
        status: parts.status,
        started: exchange.started,
        lease,
    };
    let idle = exchange.worker.shared.config.response_idle_timeout.0;
    let deadline = exchange.whole_deadline();
    let body = UpstreamBody::new(incoming, connection, served, idle, deadline);
    Ok(Response::from_parts(parts, body))
}

/// Draws the consequences of a failure for its instance.
fn note(
    exchange: &Exchange<'_>,
    target: &Target,
    probe: bool,
    failure: &Failure,
    tried: &mut Tried,
) {
    let worker = exchange.worker;
    let metrics = &target.revision.metrics;
    let instance = &target.instance;
    match failure {
        Failure::Broken { kept: true, .. } => {
            // It may just have closed an unused connection; a new one will show.
            tried.doubtful(instance.key);
            tracing::debug!(instance = %instance.id, %failure, "kept connection failed");
            return;
        }
        Failure::Broken { .. } => {}
        Failure::Connect(_)
        | Failure::ConnectTimeout
        | Failure::Relay(_)
        | Failure::Away(_)
        | Failure::NoIdentity => metrics.connect_error(worker.index),
    }
    tried.failed(instance.key);
    let ours = match failure {
        Failure::Connect(error) => is_ours(error),
        Failure::NoIdentity => true,
        _ => false,
    };
    if ours {
        tracing::warn!(%failure, "the gateway itself cannot open connections");
        return;
    }
    let config = &worker.shared.config;
    let now = worker.shared.millis(Instant::now());
    let back_off = (config.sit_out.0, config.sit_out_max.0);
    let spread = worker.rng.borrow_mut().random();
    if let Some(time) = instance.failed(now, probe, back_off, spread) {
        metrics.sit_out(worker.index);
        tracing::warn!(
            instance = %instance.id, %failure, millis = time.as_millis(),
            "instance failed and sits out"
        );
    }
}

/// Whether a failure to connect says nothing about the instance.
fn is_ours(error: &io::Error) -> bool {
    const CODES: [i32; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error
            .raw_os_error()
            .is_some_and(|code| CODES.contains(&code))
}
