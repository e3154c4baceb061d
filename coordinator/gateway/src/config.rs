//! What a gateway can be told, with its defaults.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use berth_model::time::{Bytes, Span};
use serde::Deserialize;

/// Certificate and key of a gateway that serves HTTPS.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file with the certificate chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// A gateway's configuration; every key has a default, unknown keys are refused.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
    /// Where clients connect; port 0 takes a free one. Default `0.0.0.0:7480`.
    pub listen: SocketAddr,
    /// Where `/metrics`, `/healthz` and `/readyz` are; keep it on loopback. Default `127.0.0.1:7481`.
    pub admin_listen: SocketAddr,
    /// HTTPS instead of HTTP. Default: none.
    pub tls: Option<TlsConfig>,
    /// Whether another process of the same user may listen on the same port at the same time, to
    /// replace a gateway without a gap. Default `false`: a second one fails to start.
    pub share_port: bool,
    /// Threads; 0 means one per core. Default 0.
    pub threads: usize,
    /// Client connections at a time, over all threads; further ones get 503. Default 10000.
    pub max_connections: usize,
    /// Largest request head (request line and headers). Default 64KiB.
    pub max_head: Bytes,
    /// Most headers in a request. Default 100.
    pub max_headers: usize,
    /// Longest time from a request head's first byte to its last, and for a TLS handshake. Default 10s.
    pub head_timeout: Span,
    /// How long an idle client connection is kept. Default 75s.
    pub keep_alive_timeout: Span,
    /// Largest request body where the manifest sets no `limits.max_body`. Default 64MiB.
    pub max_body: Bytes,
    /// Longest pause within a request body. Default 30s.
    pub body_idle_timeout: Span,
    /// Longest time without a client taking any byte that it was sent (TCP_USER_TIMEOUT). Default 60s.
    pub client_timeout: Span,
    /// Longest time to the response's head, queueing and replays included, where the manifest sets no
    /// `limits.timeout` (which then covers the response's body as well). Default 60s.
    pub request_timeout: Span,
    /// Longest pause within a response body. Default 60s.
    pub response_idle_timeout: Span,
    /// Requests of one service that may wait for a place where the manifest sets `limits.concurrency`
    /// but no `limits.queue`. Default 1000.
    pub queue: u32,
    /// Longest time to connect to an instance. Default 2s.
    pub connect_timeout: Span,
    /// Longest time without an instance acknowledging sent bytes (TCP_USER_TIMEOUT). Default 10s.
    pub upstream_timeout: Span,
    /// How long an unused connection to an instance is kept. Default 4s, less than the shortest
    /// keep-alive time of common model servers (5 s), so that they do not close it under a request.
    pub pool_idle_timeout: Span,
    /// Unused connections kept per instance and thread. Default 64.
    pub pool_max_idle: usize,
    /// How often a request is sent at most. Default 3.
    pub attempts: u32,
    /// How much of a request's body is kept to send it again. Default 64KiB.
    pub replay_buffer: Bytes,
    /// How long an instance sits out after its first failure; doubles with each further one. Default 200ms.
    pub sit_out: Span,
    /// Longest time an instance sits out. Default 10s.
    pub sit_out_max: Span,
    /// Whether clients' own `x-forwarded-*` headers are kept and extended, for a gateway behind a
    /// load balancer. Default `false`: they are replaced.
    pub trust_forwarded: bool,
    /// How long a stopping gateway waits for requests in flight. Default 30s.
    pub drain_timeout: Span,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::UNSPECIFIED, 7480).into(),
            admin_listen: (Ipv4Addr::LOCALHOST, 7481).into(),
            tls: None,
            share_port: false,
            threads: 0,
            max_connections: 10_000,
            max_head: Bytes(64 << 10),
            max_headers: 100,
            head_timeout: Span::secs(10),
            keep_alive_timeout: Span::secs(75),
            max_body: Bytes(64 << 20),
            body_idle_timeout: Span::secs(30),
            client_timeout: Span::secs(60),
            request_timeout: Span::secs(60),
            response_idle_timeout: Span::secs(60),
            queue: 1000,
            connect_timeout: Span::secs(2),
            upstream_timeout: Span::secs(10),
            pool_idle_timeout: Span::secs(4),
            pool_max_idle: 64,
            attempts: 3,
            replay_buffer: Bytes(64 << 10),
            sit_out: Span::millis(200),
            sit_out_max: Span::secs(10),
            trust_forwarded: false,
            drain_timeout: Span::secs(30),
        }
    }
}

impl GatewayConfig {
    /// The number of threads that will serve: `threads`, or one per core.
    pub fn thread_count(&self) -> usize {
        if self.threads > 0 {
            return self.threads;
        }
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    /// How often connections are looked over for expired timeouts: often enough that the shortest
    /// of them is exceeded by a quarter at most.
    pub(crate) fn sweep_interval(&self) -> std::time::Duration {
        let shortest = self
            .head_timeout
            .min(self.keep_alive_timeout)
            .min(self.pool_idle_timeout);
        (shortest.0 / 4).clamp(
            std::time::Duration::from_millis(10),
            std::time::Duration::from_secs(1),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_and_unknown_ones_refused() {
        let config: GatewayConfig = toml::from_str(
            "listen = \"127.0.0.1:0\"\nrequest_timeout = \"5s\"\nmax_body = \"1MiB\"",
        )
        .unwrap();
        assert_eq!(config.request_timeout, Span::secs(5));
        assert_eq!(config.max_body, Bytes(1 << 20));
        assert_eq!(config.attempts, 3);
        assert!(toml::from_str::<GatewayConfig>("thread = 1").is_err());
    }
}
