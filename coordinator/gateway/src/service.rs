//! One request, from its head to a response's head. Nothing here depends on the HTTP version that
//! the client speaks.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, EXPECT, HOST, RETRY_AFTER, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::body::{BodyError, GatewayBody, OwnBody, RequestBody};
use crate::downstream::Slot;
use crate::exchange::{Asked, Exchange};
use crate::forward;
use crate::headers::{self, BERTH_ERROR, Client, Said, X_REQUEST_ID};
use crate::path::{self, Action, Call};
use crate::refusal::Refusal;
use crate::worker::Worker;

/// Who asks, by which connection.
pub(crate) struct Caller {
    pub(crate) worker: Rc<Worker>,
    pub(crate) slot: Rc<Slot>,
    pub(crate) client: Client,
}

/// A response's body; while it exists, its connection is busy.
pub(crate) struct Tracked {
    body: GatewayBody,
    slot: Rc<Slot>,
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.slot.idle();
    }
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Serves a request. There is always a response.
pub(crate) async fn handle(
    caller: Rc<Caller>,
    request: Request<Incoming>,
) -> Result<Response<Tracked>, Infallible> {
    let started = Instant::now();
    caller.slot.busy(started);
    let worker = &caller.worker;
    let config = &worker.shared.config;
    let (mut parts, incoming) = request.into_parts();
    let id = headers::request_id(&parts.headers).unwrap_or_else(|| worker.new_request_id());
    let body = RequestBody::new(
        incoming,
        parts.headers.contains_key(EXPECT),
        usize::try_from(config.replay_buffer.0).unwrap_or(usize::MAX),
        config.body_idle_timeout.0,
    );
    let answered = answer(&caller, &parts, &body, &id, started).await;
    worker.reuse_headers(std::mem::take(&mut parts.headers));
    let mut response = answered.unwrap_or_else(|refusal| own(&refusal, body.take_unread()));
    response.headers_mut().insert(X_REQUEST_ID, id);
    if worker.connections.says_close() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    let slot = Rc::clone(&caller.slot);
    Ok(response.map(|body| Tracked { body, slot }))
}

async fn answer(
    caller: &Caller,
    parts: &Parts,
    body: &RequestBody,
    id: &HeaderValue,
    started: Instant,
) -> Result<Response<GatewayBody>, Refusal> {
    let worker = &caller.worker;
    let unknown = |refusal: Refusal| {
        worker.shared.process.errors.count(refusal.kind);
        refusal
    };
    screen(parts).map_err(unknown)?;
    let call = path::parse(&parts.method, parts.uri.path()).map_err(unknown)?;
    let asked = Asked {
        method: &parts.method,
        uri: &parts.uri,
        given: &parts.headers,
        said: Said {
            client: &caller.client,
            request_id: id,
            prefix: prefix(&call, parts.uri.path()),
            trust: worker.shared.config.trust_forwarded,
        },
        body,
        started,
    };
    let exchange = Exchange::new(worker, asked, call).map_err(unknown)?;
    let answered = match exchange.admit_body() {
        Err(refusal) => Err(refusal),
        Ok(()) => {
            let forwarded = pin!(forward::forward(&exchange));
            tokio::time::timeout_at(exchange.head_deadline(), forwarded)
                .await
                .unwrap_or_else(|_| Err(exchange.too_slow()))
        }
    };
    match answered {
        Ok(response) => Ok(response.map(GatewayBody::Upstream)),
        Err(refusal) => {
            exchange.refused(&refusal);
            let mut response = own(&refusal, body.take_unread());
            exchange.label(&mut response);
            Ok(response)
        }
    }
}

/// What `/s/SERVICE/…` loses.
fn prefix(call: &Call<'_>, path: &str) -> Option<HeaderValue> {
    match call.action {
        Action::Free { prefix } => HeaderValue::from_bytes(&path.as_bytes()[..prefix]).ok(),
        _ => None,
    }
}

/// Whether the client asks for a protocol that would change what the connection carries. The offer of
/// HTTP/2 (`h2c`), which some clients make with every request, may be ignored; any other upgrade that
/// were ignored would only fail later and less clearly.
fn wants_upgrade(headers: &HeaderMap) -> bool {
    let mut wanted = headers.get_all(UPGRADE).iter();
    wanted.any(|value| !value.as_bytes().eq_ignore_ascii_case(b"h2c"))
}

/// What no request may be.
fn screen(parts: &Parts) -> Result<(), Refusal> {
    if parts.method == Method::CONNECT || wants_upgrade(&parts.headers) {
        return Err(Refusal::bad_request(
            "This gateway passes on no other protocol: neither CONNECT nor Upgrade.",
        ));
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    let first = hosts.next();
    let must_have = parts.version == Version::HTTP_11 && parts.uri.authority().is_none();
    if hosts.next().is_some() || (must_have && first.is_none()) {
        return Err(Refusal::bad_request("A request has one Host header."));
    }
    Ok(())
}

/// The gateway's own answer.
fn own(refusal: &Refusal, unread: Option<Incoming>) -> Response<GatewayBody> {
    let body = OwnBody::new(refusal.body(), unread);
    let mut response = Response::new(GatewayBody::Own(body));
    *response.status_mut() = refusal.status;
    let headers = response.headers_mut();
    let json = HeaderValue::from_static("application/json");
    headers.insert(CONTENT_TYPE, json);
    let kind = HeaderValue::from_static(refusal.kind.as_str());
    headers.insert(BERTH_ERROR, kind);
    if let Some(seconds) = refusal.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(methods) = refusal.allow {
        headers.insert(ALLOW, HeaderValue::from_static(methods));
    }
    response
}
