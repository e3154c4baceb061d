//! TLS connections to the coordinator: always in its fixed name, whatever the address.

mod heard;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use berth_proto::COORDINATOR_NAME;
use berth_trust::Undated;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::identity::{Identity, PinnedCa};
use heard::{Heard, Word};

/// Longest time for TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Silence after which the peer is asked whether it lives, and the time it has to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Why there is no connection to the coordinator.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Not an address.
    #[error(
        "{0:?} is not the address of a coordinator: write HOST:PORT, as in coordinator.example:7450"
    )]
    Endpoint(String),
    /// A certificate or key that TLS does not take.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    /// TCP or TLS failed.
    #[error(
        "cannot connect to the coordinator at {endpoint}: {problem}; is it running, and reachable from here?"
    )]
    Transport {
        /// Where.
        endpoint: String,
        /// What happened.
        problem: String,
    },
}

/// `host:port` of an endpoint as people write it, with or without `https://`.
pub fn normalize(endpoint: &str) -> Result<String, ConnectError> {
    let bare = endpoint
        .trim()
        .trim_start_matches("https://")
        .trim_end_matches('/');
    let good = bare.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    if good {
        Ok(bare.to_owned())
    } else {
        Err(ConnectError::Endpoint(endpoint.to_owned()))
    }
}

/// Makes connections to one coordinator.
#[derive(Debug, Clone)]
pub struct Dialer {
    endpoint: String,
    tls: Arc<ClientConfig>,
    word: Word,
}

impl Dialer {
    /// With the node's certificate.
    pub fn mutual(endpoint: &str, identity: &Identity) -> Result<Self, ConnectError> {
        let tls = berth_trust::client(&identity.ca)?
            .with_client_auth_cert(identity.chain.clone(), identity.key.private())?;
        Ok(Self::new(endpoint, tls))
    }

    /// Without a certificate, to a coordinator whose CA is known.
    pub fn anonymous(endpoint: &str, identity: &Identity) -> Result<Self, ConnectError> {
        let tls = berth_trust::client(&identity.ca)?.with_no_client_auth();
        Ok(Self::new(endpoint, tls))
    }

    /// Without a certificate, to a coordinator of whose CA only the key's hash is known.
    pub fn pinned(endpoint: &str, ca_key_hash: &str) -> Result<Self, ConnectError> {
        let provider = provider();
        let verifier = Arc::new(PinnedCa::new(ca_key_hash, provider.clone()));
        let verifier = Arc::new(Undated::new(verifier));
        let tls = versions(provider)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(Self::new(endpoint, tls))
    }

    fn new(endpoint: &str, mut tls: ClientConfig) -> Self {
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Self {
            endpoint: endpoint.to_owned(),
            tls: Arc::new(tls),
            word: Word::default(),
        }
    }

    /// Whether the coordinator has refused a connection because the certificate has expired or is not valid yet, by its
    /// clock. It says so after the handshake, when requests fail already in other words.
    pub fn expired(&self) -> bool {
        self.word.is_expired()
    }

    /// Connects once; the channel does not reconnect to anything else than the same endpoint with the
    /// same credentials.
    pub async fn connect(&self) -> Result<Channel, ConnectError> {
        // The connector does TLS itself, with a name that the address does not have; to tonic the
        // connection is a plain one.
        let endpoint = Endpoint::from_static("http://coordinator.berth.internal")
            .origin(Uri::from_static("https://coordinator.berth.internal"))
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let dialer = self.clone();
        let connector = tower::service_fn(move |_: Uri| dial(dialer.clone()));
        endpoint
            .connect_with_connector(connector)
            .await
            .map_err(|error| ConnectError::Transport {
                endpoint: self.endpoint.clone(),
                problem: root(&error),
            })
    }
}

/// The cause of an error; what is above it here only says that there is one.
fn root(error: &dyn std::error::Error) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}

async fn dial(
    dialer: Dialer,
) -> io::Result<TokioIo<Heard<tokio_rustls::client::TlsStream<TcpStream>>>> {
    let tcp = TcpStream::connect(&dialer.endpoint).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from(COORDINATOR_NAME).map_err(io::Error::other)?;
    let stream = TlsConnector::from(dialer.tls).connect(name, tcp).await;
    let stream = stream.inspect_err(|error| dialer.word.note(error))?;
    Ok(TokioIo::new(Heard::new(stream, dialer.word)))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn versions(
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_host_and_port() {
        for good in [
            "c:7450",
            "https://c:7450",
            "https://c:7450/",
            "[::1]:7450",
            " 127.0.0.1:1 ",
        ] {
            assert!(normalize(good).is_ok(), "{good}");
        }
        assert_eq!(normalize("https://c:7450/").unwrap(), "c:7450");
        for bad in ["", "c", "c:", ":7450", "c:0", "http://c:7450", "c:7450/v1"] {
            assert!(normalize(bad).is_err(), "{bad}");
        }
    }
}
