//! Following control's route table for ever: connecting, reconnecting, reporting.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use berth_gateway::Handle;
use berth_model::gateway::GatewayReport;
use berth_model::route::Table;
use berth_proto::COORDINATOR_NAME;
use berth_proto::v1::routes_client::RoutesClient;
use berth_proto::v1::{Certified, GatewayHello, GatewayMessage, RouteMessage};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Streaming};

use super::Backoff;
use super::config::authority;
use super::identity::Identity;
use super::tables::Tables;
use crate::chain;

/// A report goes out at least this often.
const REPORT_EVERY: Duration = Duration::from_secs(1);
const CONNECT: Duration = Duration::from_secs(5);
const PING: Duration = Duration::from_secs(5);
/// When a certificate is asked for again: not all the time, whatever the coordinator says, and after a failure.
const SOONEST: Duration = Duration::from_secs(2);
const LATEST: Duration = Duration::from_secs(30 * 86_400);
const AGAIN: Duration = Duration::from_secs(60);
/// Longest table.
const MAX_TABLE: usize = 256 << 20;

/// Follows the route table.
pub(super) struct Follower {
    pub(super) dial: Dial,
    pub(super) tables: Tables,
    pub(super) gateway: Handle,
    pub(super) identity: Identity,
}

/// Who this is, and how to reach the coordinator.
pub(super) struct Dial {
    pub(super) name: String,
    pub(super) incarnation: String,
    pub(super) url: String,
    pub(super) endpoint: String,
    pub(super) ca_file: PathBuf,
    pub(super) token_file: PathBuf,
}

/// Why a connection to the coordinator ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("cannot read {path}", path = path.display())]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path} holds no CA's certificate: {problem}", path = path.display())]
    Authority { path: PathBuf, problem: String },
    #[error("{0:?} is not HOST:PORT")]
    Endpoint(String),
    #[error("cannot connect")]
    Connect(#[from] tonic::transport::Error),
    #[error("{}", .0.message())]
    Status(#[from] tonic::Status),
    #[error("the gateway token cannot be sent: it has characters that no header takes")]
    Token,
    #[error("cannot make a certificate request")]
    Request(#[from] rcgen::Error),
    #[error("the coordinator closed the stream")]
    Closed,
    #[error("the coordinator sent a table that cannot be read: {0}")]
    Table(#[from] serde_json::Error),
}

impl Follower {
    /// Ends only when the process has nothing left to do.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new();
        while !self.tables.gone() {
            let mut told = false;
            let Err(ended) = self.session(&mut told).await else {
                return;
            };
            self.tables.known(false);
            if told {
                backoff = Backoff::new();
            }
            let wait = backoff.next();
            tracing::warn!(
                error = chain(&ended),
                retry_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                "not connected to the coordinator; serving by the last route table"
            );
            self.pause(wait).await;
        }
    }

    /// Waits, and goes on saving meanwhile.
    async fn pause(&mut self, wait: Duration) {
        let until = tokio::time::Instant::now() + wait;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                () = self.tables.news() => if self.tables.gone() { return },
            }
        }
    }

    /// One connection, until it fails or the process says goodbye. `told` is set when a table has come.
    async fn session(&mut self, told: &mut bool) -> Result<(), Ended> {
        let first = GatewayMessage {
            hello: Some(GatewayHello {
                name: self.dial.name.clone(),
                url: self.dial.url.clone(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                incarnation: self.dial.incarnation.clone(),
                beside: self.tables.beside(),
            }),
            report: Some(self.tables.report().into()),
            csr: self.identity.request()?.into(),
            goodbye: false,
        };
        let mut opening = pin!(self.dial.open(first));
        let (outbound, mut inbound) = loop {
            tokio::select! {
                opened = opening.as_mut() => break opened?,
                () = self.tables.news() => if self.tables.gone() { return Ok(()) },
            }
        };
        let mut ticks = tokio::time::interval(REPORT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = None::<GatewayReport>;
        let mut due = false;
        // None while a certificate is on its way.
        let mut renewal = None::<Instant>;
        loop {
            let mut csr = Vec::new();
            tokio::select! {
                message = inbound.message() => {
                    let message = message?.ok_or(Ended::Closed)?;
                    if let Some(certified) = message.certificate {
                        renewal = Some(self.certified(&certified));
                    }
                    if !message.table_json.is_empty() {
                        self.tables.take(serde_json::from_slice::<Table>(&message.table_json)?);
                        self.tables.known(true);
                        *told = true;
                    }
                }
                () = self.tables.news() => if self.tables.gone() {
                    return self.leave(&outbound, inbound).await;
                },
                () = self.gateway.changed() => {}
                _ = ticks.tick() => {
                    self.tables.save();
                    due = true;
                    if renewal.is_some_and(|at| Instant::now() >= at) {
                        csr = self.identity.request()?;
                    }
                }
            }
            let report = self.tables.report();
            if due || last.as_ref() != Some(&report) {
                // A full queue means that the connection is slow: the next report will say it all.
                let message = GatewayMessage {
                    hello: None,
                    report: Some(report.clone().into()),
                    csr: csr.into(),
                    goodbye: false,
                };
                let asked = !message.csr.is_empty();
                match outbound.try_send(message) {
                    Ok(()) => {
                        last = Some(report);
                        due = false;
                        renewal = renewal.filter(|_| !asked);
                    }
                    Err(mpsc::error::TrySendError::Full(_)) => due = true,
                    Err(mpsc::error::TrySendError::Closed(_)) => return Err(Ended::Closed),
                }
            }
        }
    }

    /// Takes a certificate; answers when to ask for the next one, by a clock that does not jump.
    fn certified(&self, certified: &Certified) -> Instant {
        let wait = match self.identity.take(&self.gateway, certified) {
            Ok(()) => Duration::from_millis(certified.renew_after_ms).max(SOONEST),
            Err(error) => {
                tracing::error!(
                    error = chain(&error),
                    "the certificate for relays is not taken"
                );
                AGAIN
            }
        };
        Instant::now() + wait.min(LATEST)
    }

    /// Says that all is over, and waits until that is heard.
    async fn leave(
        &self,
        outbound: &mpsc::Sender<GatewayMessage>,
        mut inbound: Streaming<RouteMessage>,
    ) -> Result<(), Ended> {
        let goodbye = GatewayMessage {
            hello: None,
            report: Some(self.tables.report().into()),
            csr: Default::default(),
            goodbye: true,
        };
        let sent = outbound.send(goodbye).await;
        sent.map_err(|_| Ended::Closed)?;
        while inbound.message().await?.is_some() {}
        Ok(())
    }
}

impl Dial {
    async fn open(
        &self,
        first: GatewayMessage,
    ) -> Result<(mpsc::Sender<GatewayMessage>, Streaming<RouteMessage>), Ended> {
        let token = read(&self.token_file)?;
        let channel = self.connect().await?;
        let (outbound, messages) = mpsc::channel(16);
        outbound.try_send(first).map_err(|_| Ended::Closed)?;
        let mut request = Request::new(ReceiverStream::new(messages));
        let bearer = format!("Bearer {}", token.trim());
        let bearer = bearer.parse().map_err(|_| Ended::Token)?;
        request.metadata_mut().insert("authorization", bearer);
        let inbound = RoutesClient::new(channel)
            .max_decoding_message_size(MAX_TABLE)
            .follow(request)
            .await?
            .into_inner();
        tracing::info!(endpoint = self.endpoint, "connected to the coordinator");
        Ok((outbound, inbound))
    }

    async fn connect(&self) -> Result<Channel, Ended> {
        let ca = read(&self.ca_file)?;
        let authority =
            authority(&self.endpoint).ok_or_else(|| Ended::Endpoint(self.endpoint.clone()))?;
        let config = Arc::new(tls(&self.ca_file, ca.as_bytes())?);
        // The connector does TLS itself: to tonic the connection is a plain one.
        let endpoint = Endpoint::from_static("http://coordinator.berth.internal")
            .origin(Uri::from_static("https://coordinator.berth.internal"))
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .keep_alive_while_idle(true);
        let address = authority.to_string();
        let dial = tower::service_fn(move |_: Uri| dial(address.clone(), Arc::clone(&config)));
        Ok(endpoint.connect_with_connector(dial).await?)
    }
}

async fn dial(
    address: String,
    config: Arc<ClientConfig>,
) -> io::Result<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>> {
    let tcp = TcpStream::connect(&address).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from(COORDINATOR_NAME).map_err(io::Error::other)?;
    let stream = TlsConnector::from(config).connect(name, tcp).await?;
    Ok(TokioIo::new(stream))
}

/// Trusts the fleet's CA, whatever this machine's clock says.
fn tls(path: &Path, ca: &[u8]) -> Result<ClientConfig, Ended> {
    let bad = |problem: String| Ended::Authority {
        path: path.to_owned(),
        problem,
    };
    let cas: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(ca).collect();
    let cas = cas.map_err(|error| bad(error.to_string()))?;
    let builder = berth_trust::client(&cas).map_err(|error| bad(error.to_string()))?;
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn read(path: &std::path::Path) -> Result<String, Ended> {
    std::fs::read_to_string(path).map_err(|source| Ended::File {
        path: path.to_owned(),
        source,
    })
}
