//! A simulated agent: it joins with a key of its own, keeps a session as the real one does, comes back
//! as the real one does, and runs nothing.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use berth_model::token::JoinToken;
use berth_proto::COORDINATOR_NAME;
use berth_proto::v1::agent_message::Message as Up;
use berth_proto::v1::agents_client::AgentsClient;
use berth_proto::v1::coordinator_message::Message as Down;
use berth_proto::v1::enrollment_client::EnrollmentClient;
use berth_proto::v1::{
    AgentMessage, DesiredAck, Facts, Hello, JoinRequest, NodeStatistics, Order, Pong, Resources,
    Statistics, Welcome,
};
use hyper_util::rt::TokioIo;
use rand::Rng;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// What all agents together have seen.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) there: AtomicUsize,
    pub(crate) lost: AtomicUsize,
    pub(crate) attempts: AtomicUsize,
    pub(crate) refused: AtomicUsize,
    began: Mutex<Option<Instant>>,
    back: Mutex<Vec<Duration>>,
    error: Mutex<String>,
}

fn held<T>(lock: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tally {
    pub(crate) fn reset(&self) {
        *held(&self.began) = None;
        held(&self.back).clear();
        self.attempts.store(0, Ordering::SeqCst);
    }

    pub(crate) fn begin(&self, at: Instant) {
        *held(&self.began) = Some(at);
    }

    /// When they came back, counted from the coordinator's start, in order.
    pub(crate) fn back(&self) -> Vec<Duration> {
        let mut back = held(&self.back).clone();
        back.sort_unstable();
        back
    }

    pub(crate) fn last_error(&self) -> String {
        held(&self.error).clone()
    }

    fn welcome(&self) {
        self.there.fetch_add(1, Ordering::SeqCst);
        if let Some(began) = *held(&self.began) {
            held(&self.back).push(began.elapsed());
        }
    }
}

pub(crate) struct Agent {
    number: usize,
    endpoint: String,
    tls: Arc<ClientConfig>,
}

impl Agent {
    pub(crate) async fn join(
        number: usize,
        endpoint: String,
        ca: &str,
        token: &JoinToken,
    ) -> Result<Self> {
        let key = KeyPair::generate()?;
        let csr = CertificateParams::default().serialize_request(&key)?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes())?)?;
        let builder = || ClientConfig::builder().with_root_certificates(roots.clone());
        let channel = connect(&endpoint, with_h2(builder().with_no_client_auth())).await?;
        let request = JoinRequest {
            token_id: token.id.clone(),
            token_secret: token.secret.clone(),
            csr: csr.der().to_vec().into(),
            name: format!("node-{number}"),
            facts: Some(facts(number)),
            ..JoinRequest::default()
        };
        let reply = EnrollmentClient::new(channel).join(request).await?;
        let chain = CertificateDer::pem_slice_iter(reply.into_inner().certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()?;
        let private = PrivateKeyDer::try_from(key.serialize_der()).map_err(|e| anyhow!("{e}"))?;
        let tls = with_h2(builder().with_client_auth_cert(chain, private)?);
        Ok(Self {
            number,
            endpoint,
            tls,
        })
    }

    /// Keeps a session for ever.
    pub(crate) async fn run(self, tally: Arc<Tally>) {
        const FIRST: Duration = Duration::from_millis(200);
        let mut most = Duration::from_secs(15);
        let mut bound = FIRST;
        loop {
            tally.attempts.fetch_add(1, Ordering::SeqCst);
            let mut welcomed = None;
            let ended = self.session(&tally, &mut welcomed).await;
            let mut wait = bound.mul_f64(rand::rng().random_range(0.1..=1.0));
            bound = (bound * 2).min(most);
            if let Some(welcome) = welcomed {
                tally.there.fetch_sub(1, Ordering::SeqCst);
                tally.lost.fetch_add(1, Ordering::SeqCst);
                most = Duration::from_millis(welcome.lease_ms / 3);
                bound = FIRST;
                let spread = Duration::from_millis(welcome.spread_ms).min(most);
                wait = wait.max(spread.mul_f64(rand::rng().random_range(0.0..=1.0)));
            }
            if let Err(error) = ended {
                *held(&tally.error) = format!("{error:#}");
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn session(&self, tally: &Tally, welcomed: &mut Option<Welcome>) -> Result<()> {
        let channel = connect(&self.endpoint, Arc::clone(&self.tls)).await?;
        let (out, queue) = mpsc::channel(8);
        let say = async |message| {
            let message = AgentMessage {
                message: Some(message),
            };
            out.send(message).await.context("the stream is over")
        };
        say(Up::Hello(Hello {
            facts: Some(facts(self.number)),
            incarnation: format!("one of {}", self.number),
            accepted: Some(Order::default()),
            ..Hello::default()
        }))
        .await?;
        let mut client = AgentsClient::new(channel);
        let mut inbound = client
            .session(ReceiverStream::new(queue))
            .await?
            .into_inner();
        let first = inbound.message().await?.and_then(|m| m.message);
        let Some(Down::Welcome(welcome)) = first else {
            tally.refused.fetch_add(1, Ordering::SeqCst);
            return Err(anyhow!("no welcome, but {first:?}"));
        };
        tally.welcome();
        let beat = Duration::from_millis(welcome.heartbeat_ms);
        *welcomed = Some(welcome);
        // They do not beat together, even where all came at once.
        let first = tokio::time::Instant::now() + beat.mul_f64(rand::rng().random_range(0.0..1.0));
        let mut beats = tokio::time::interval_at(first, beat);
        loop {
            tokio::select! {
                message = inbound.message() => {
                    let message = message?.context("the coordinator ended the session")?;
                    match message.message {
                        Some(Down::Ping(ping)) => say(Up::Pong(Pong { nonce: ping.nonce })).await?,
                        Some(Down::Desired(set)) => say(Up::DesiredAck(DesiredAck {
                            order: set.order,
                            refused: String::new(),
                        }))
                        .await?,
                        _ => {}
                    }
                }
                _ = beats.tick() => say(Up::Statistics(statistics())).await?,
            }
        }
    }
}

fn with_h2(mut tls: ClientConfig) -> Arc<ClientConfig> {
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(tls)
}

/// With the real agent's settings.
async fn connect(endpoint: &str, tls: Arc<ClientConfig>) -> Result<Channel> {
    let patience = Duration::from_secs(5);
    let endpoint = endpoint.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let (endpoint, tls) = (endpoint.clone(), Arc::clone(&tls));
        async move {
            let tcp = TcpStream::connect(&endpoint).await?;
            tcp.set_nodelay(true)?;
            let name = ServerName::try_from(COORDINATOR_NAME).map_err(std::io::Error::other)?;
            let stream = TlsConnector::from(tls).connect(name, tcp).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    let channel = Endpoint::from_static("http://coordinator.berth.internal")
        .origin(Uri::from_static("https://coordinator.berth.internal"))
        .connect_timeout(patience)
        .http2_keep_alive_interval(patience)
        .keep_alive_timeout(patience)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await?;
    Ok(channel)
}

fn facts(number: usize) -> Facts {
    Facts {
        kind: "virtual".to_owned(),
        exclusive: true,
        capacity: Some(Resources {
            cpu_millis: 4_000,
            memory_bytes: 8 << 30,
            gpus: 0,
            disk_bytes: 100 << 30,
        }),
        runtimes: vec!["process".to_owned()],
        hostname: format!("node-{number}"),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Facts::default()
    }
}

/// What an idle machine says with each heartbeat.
fn statistics() -> Statistics {
    Statistics {
        rss_bytes: 12 << 20,
        cpu_millis: 1,
        node: Some(NodeStatistics {
            load_1: 0.1,
            uptime_secs: 86_400,
            memory_used_bytes: 1 << 30,
            ..NodeStatistics::default()
        }),
        ..Statistics::default()
    }
}
