//! One question to a module.

use std::net::SocketAddr;
use std::time::Duration;

use berth_model::manifest::{HealthCheck, Protocol};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// How much of an answer is read: enough for any status page, so that the module can end its write.
const MOST: usize = 64 * 1024;

/// Path of the gRPC health service's only method that matters here.
const GRPC_CHECK: &str = "/grpc.health.v1.Health/Check";

/// Asks once. An error is a short text for people.
pub async fn probe(
    check: &HealthCheck,
    protocol: Protocol,
    address: SocketAddr,
    timeout: Duration,
) -> Result<(), String> {
    let asked = async {
        let stream = connect(address).await?;
        match check {
            HealthCheck::Tcp => Ok(()),
            HealthCheck::Http(path) => {
                let (status, _) = get(stream, protocol, address, path, MOST).await?;
                match status.is_success() {
                    true => Ok(()),
                    false => Err(format!("GET {path} answered {status}")),
                }
            }
            HealthCheck::Grpc => grpc(stream).await,
        }
    };
    within(timeout, asked).await
}

/// Gets a path once; the body up to `most` bytes, and nothing of it if it is longer.
pub async fn fetch(
    address: SocketAddr,
    path: &str,
    most: usize,
    timeout: Duration,
) -> Result<(StatusCode, Bytes), String> {
    let asked = async {
        let stream = connect(address).await?;
        get(stream, Protocol::Http1, address, path, most).await
    };
    within(timeout, asked).await
}

async fn within<T>(
    timeout: Duration,
    asked: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    tokio::time::timeout(timeout, asked)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {timeout:?}")))
}

async fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    TcpStream::connect(address)
        .await
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            _ => format!("cannot connect: {error}"),
        })
}

async fn get(
    stream: TcpStream,
    protocol: Protocol,
    address: SocketAddr,
    path: &str,
    most: usize,
) -> Result<(StatusCode, Bytes), String> {
    let failed = |error: hyper::Error| format!("GET {path}: {}", crate::chain(&error));
    let request = Request::get(match protocol {
        Protocol::Http1 => path.to_owned(),
        Protocol::H2c => format!("http://{address}{path}"),
    })
    .header(header::USER_AGENT, "berth-health");
    let request = match protocol {
        Protocol::Http1 => request
            .header(header::HOST, address.to_string())
            .header(header::CONNECTION, "close"),
        Protocol::H2c => request,
    };
    let request = request
        .body(Full::default())
        .map_err(|error| format!("GET {path}: {error}"))?;
    let response = match protocol {
        Protocol::Http1 => {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
                .await
                .map_err(failed)?;
            tokio::spawn(connection);
            sender.send_request(request).await.map_err(failed)?
        }
        Protocol::H2c => h2(stream, request).await.map_err(failed)?,
    };
    let status = response.status();
    Ok((status, body(response, most).await))
}

async fn h2(
    stream: TcpStream,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, hyper::Error> {
    let io = TokioIo::new(stream);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
    tokio::spawn(connection);
    sender.send_request(request).await
}

async fn body(response: Response<Incoming>, most: usize) -> Bytes {
    let body = Limited::new(response.into_body(), most);
    body.collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default()
}

/// `Check` of the whole server. The request is an empty message; the answer's field 1 is the status,
/// of which 1 means serving.
async fn grpc(stream: TcpStream) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("gRPC health: {error}");
    let request = Request::post(format!("http://localhost{GRPC_CHECK}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(Full::new(Bytes::from_static(&[0; 5])))
        .map_err(|error| failed(&error))?;
    let response = h2(stream, request)
        .await
        .map_err(|error| failed(&crate::chain(&error)))?;
    if let Some(code) = response
        .headers()
        .get("grpc-status")
        .filter(|code| *code != "0")
    {
        return Err(failed(&format!("status {}", code.to_str().unwrap_or("?"))));
    }
    if !response.status().is_success() {
        return Err(failed(&response.status()));
    }
    let body = Limited::new(response.into_body(), MOST);
    let body = body.collect().await.map_err(|error| failed(&error))?;
    let code = body
        .trailers()
        .and_then(|trailers| trailers.get("grpc-status"))
        .cloned();
    if let Some(code) = code.filter(|code| code != "0") {
        return Err(failed(&format!("status {}", code.to_str().unwrap_or("?"))));
    }
    // Five bytes of frame header, then the message.
    match body.to_bytes().get(5..) {
        Some([0x08, 1, ..]) => Ok(()),
        Some([0x08, 2, ..]) => Err(failed(&"NOT_SERVING")),
        _ => Err(failed(&"not SERVING")),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    async fn server(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"GET /healthz HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        address
    }

    async fn ask(address: SocketAddr, timeout: Duration) -> Result<(), String> {
        probe(
            &HealthCheck::Http("/healthz".into()),
            Protocol::Http1,
            address,
            timeout,
        )
        .await
    }

    #[tokio::test]
    async fn only_success_is_health() {
        let ok = server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        assert_eq!(ask(ok, TIMEOUT).await, Ok(()));
        let busy = server("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
        let told = ask(busy, TIMEOUT).await.unwrap_err();
        assert!(told.contains("/healthz answered 503"), "{told}");
        let other = server("SSH-2.0-x\r\n").await;
        assert!(ask(other, TIMEOUT).await.is_err());
        let moved = server("HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n").await;
        assert!(ask(moved, TIMEOUT).await.is_err());
    }

    #[tokio::test]
    async fn nobody_and_silence_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let told = ask(address, Duration::from_millis(50)).await.unwrap_err();
        assert!(told.starts_with("no answer within"), "{told}");
        assert_eq!(
            probe(&HealthCheck::Tcp, Protocol::Http1, address, TIMEOUT).await,
            Ok(())
        );
        drop(listener);
        assert_eq!(
            ask(address, TIMEOUT).await.unwrap_err(),
            "connection refused"
        );
    }

    async fn h2_server(body: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let service =
                hyper::service::service_fn(move |request: Request<Incoming>| async move {
                    let known = matches!(request.uri().path(), GRPC_CHECK | "/healthz");
                    let status = if known { 200 } else { 404 };
                    let answer = Full::new(Bytes::from_static(body));
                    Ok::<_, std::convert::Infallible>(
                        Response::builder().status(status).body(answer).unwrap(),
                    )
                });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
        address
    }

    #[tokio::test]
    async fn grpc_health_and_http_over_h2c_are_understood() {
        let grpc = |address| probe(&HealthCheck::Grpc, Protocol::H2c, address, TIMEOUT);
        assert_eq!(grpc(h2_server(&[0, 0, 0, 0, 2, 8, 1]).await).await, Ok(()));
        let told = grpc(h2_server(&[0, 0, 0, 0, 2, 8, 2]).await)
            .await
            .unwrap_err();
        assert!(told.contains("NOT_SERVING"), "{told}");
        assert!(grpc(h2_server(&[]).await).await.is_err());
        let http = |path: &str, address| {
            let check = HealthCheck::Http(path.to_owned());
            async move { probe(&check, Protocol::H2c, address, TIMEOUT).await }
        };
        assert_eq!(http("/healthz", h2_server(b"ok").await).await, Ok(()));
        assert!(http("/other", h2_server(b"ok").await).await.is_err());
    }
}
