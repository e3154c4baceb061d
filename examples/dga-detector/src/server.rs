//! The HTTP/1.1 listener: limits, one log line a request, and a graceful end.

use std::convert::Infallible;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::api::{Api, Reply};
use crate::config::Config;

/// Largest request body; `max_body` of the manifest says the same to the gateway.
const MAX_BODY: usize = 1 << 20;
/// Connections at a time; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 1024;
/// Longest wait for a request's head, and for its body.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves until SIGTERM or SIGINT, then finishes the requests in flight. How long that may take is
/// for Berth to say: it kills after `stop_grace`.
pub(crate) async fn serve(config: &Config, api: Arc<Api>) -> std::io::Result<()> {
    // Before the port is announced, or a quick SIGTERM would kill instead.
    let (mut term, mut int) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let listener = TcpListener::bind((config.host, config.port)).await?;
    crate::say(&format!(
        "listening on {} as instance {}",
        listener.local_addr()?,
        config.instance
    ));
    let (stop, stopping) = watch::channel(false);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accept = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            Some(_) = connections.join_next() => {}
            (place, accepted) = accept => match accepted {
                Ok((stream, _)) => {
                    let (api, stopping) = (Arc::clone(&api), stopping.clone());
                    connections.spawn(async move {
                        connection(stream, api, stopping).await;
                        drop(place);
                    });
                }
                // Out of file descriptors, say: others must end before another can be taken.
                Err(error) => {
                    crate::say(&format!("cannot accept: {error}"));
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    drop(listener);
    crate::say(&format!("stopping, {} connections open", connections.len()));
    stop.send_replace(true);
    while connections.join_next().await.is_some() {}
    Ok(())
}

async fn connection(stream: TcpStream, api: Arc<Api>, mut stopping: watch::Receiver<bool>) {
    // Answers are small and written whole; waiting to fill a segment only delays them.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let api = Arc::clone(&api);
        async move { Ok::<_, Infallible>(respond(&api, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // A client that went away, or spoke no HTTP, is none of the server's troubles.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopping.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn respond(api: &Api, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let start = Instant::now();
    let (head, body) = request.into_parts();
    let (method, path) = (head.method.as_str(), head.uri.path());
    let reply = if Api::wants_body(method, path) {
        match read(body).await {
            Ok(body) => api.answer(method, path, &body),
            Err(reply) => reply,
        }
    } else {
        api.answer(method, path, &[])
    };
    log(method, path, &reply, start.elapsed());
    let mut response = Response::new(Full::new(Bytes::from(reply.body)));
    *response.status_mut() =
        StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// The whole body, or why not.
async fn read(body: Incoming) -> Result<Bytes, Reply> {
    let too_large = || {
        Reply::error(
            413,
            &format!("Request body is larger than the limit of {MAX_BODY} bytes"),
        )
    };
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(READ_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Reply::error(400, &format!("cannot read the body: {error}"))),
        Err(_) => Err(Reply::error(408, "the body did not arrive in time")),
    }
}

/// One line a request on stdout: method, path, status, names, microseconds.
fn log(method: &str, path: &str, reply: &Reply, took: Duration) {
    let path = path.get(..200).unwrap_or(path);
    let Reply { status, names, .. } = reply;
    let micros = took.as_micros();
    // If nobody reads, the answer still counts.
    let _ = writeln!(
        std::io::stdout().lock(),
        "{method} {path} {status} n={names} us={micros}"
    );
}
