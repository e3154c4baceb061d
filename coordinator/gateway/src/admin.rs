//! The admin listener: `/metrics`, `/healthz`, `/readyz`, on a thread of its own, so that a scrape
//! never delays a request.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::net::{TcpListener, TcpStream};

use crate::shared::{Phase, Shared};

/// Longest time for a request's head, and between requests.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Serves until the gateway stops; during a drain it still answers, unless another process does so now.
pub(crate) async fn run(shared: Arc<Shared>, listener: TcpListener) {
    let mut phase = shared.phase.subscribe();
    let over = |phase: &Phase| match phase {
        Phase::Wait | Phase::Run => false,
        Phase::Drain(drain) => drain.handed_over,
        Phase::Stop => true,
    };
    if phase.wait_for(|phase| *phase != Phase::Wait).await.is_err() {
        return;
    }
    loop {
        tokio::select! {
            stopped = phase.wait_for(over) => {
                drop(stopped);
                return;
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    tokio::spawn(serve(Arc::clone(&shared), stream));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection to the admin port");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
}

async fn serve(shared: Arc<Shared>, stream: TcpStream) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = answer(&shared, request.method(), request.uri().path());
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::trace!(%error, "admin connection ended");
    }
}

fn answer(shared: &Shared, method: &Method, path: &str) -> Response<Text> {
    if method != Method::GET && method != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n");
    }
    match path {
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" if shared.is_ready() => text(StatusCode::OK, "ready\n"),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, not_ready(shared)),
        "/metrics" => {
            let mut response = text(StatusCode::OK, shared.metrics_text());
            let prometheus = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, prometheus);
            response
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /metrics, /healthz and /readyz\n",
        ),
    }
}

fn not_ready(shared: &Shared) -> &'static str {
    if *shared.phase.borrow() == Phase::Run {
        "no route table yet\n"
    } else {
        "stopping\n"
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Text> {
    let mut response = Response::new(Text(Some(body.into())));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

/// A body of one piece.
struct Text(Option<Bytes>);

impl Body for Text {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, Bytes::len) as u64)
    }
}
