//! A coordinator of the tests' own: speaks the protocol, keeps what it hears, does what it is told.

mod pki;
mod service;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_logfile::{Frames, Mirror, segments};
use berth_model::digest::PackageDigest;
use berth_model::instance::{InstanceSpec, InstanceStatus, Phase};
use berth_model::route::Order;
use berth_proto::v1;
use berth_proto::v1::coordinator_message::Message as Down;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;
use tonic::transport::Server;

use crate::wait::until;
pub(crate) use pki::Pki;

/// What the coordinator keeps, also while it does not run.
pub(crate) struct State {
    pub(crate) pki: Pki,
    pub(crate) secret: String,
    pub(crate) certificate_life: Duration,
    /// When nodes shall renew; 0: they are not told.
    pub(crate) renew_after_ms: u64,
    /// What the welcome says of it; empty as from a coordinator that knows no relays.
    pub(crate) transport: String,
    pub(crate) joins: u32,
    pub(crate) renewals: u32,
    /// What a Pod that joins is to run.
    pub(crate) pod_instance: Option<InstanceSpec>,
    /// Pods that joined.
    pub(crate) pods: Vec<v1::PodIdentity>,
    /// The certificate request that used a Pod's token.
    pub(crate) token_used: Option<Vec<u8>>,
    pub(crate) hellos: Vec<v1::Hello>,
    /// Everything said in sessions.
    pub(crate) heard: Vec<v1::AgentMessage>,
    pub(crate) statuses: BTreeMap<String, InstanceStatus>,
    /// Every status ever heard.
    pub(crate) history: Vec<InstanceStatus>,
    pub(crate) forgotten: Vec<String>,
    pub(crate) acks: Vec<v1::DesiredAck>,
    pub(crate) pongs: Vec<u64>,
    pub(crate) statistics: u32,
    /// What it last said of its machine, and which packages it has.
    pub(crate) facts: v1::Facts,
    pub(crate) packages: Vec<PackageDigest>,
    /// What modules said last of themselves.
    pub(crate) metrics: BTreeMap<String, String>,
    pub(crate) refusal: Option<v1::Refusal>,
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
    /// Offsets at which fetches began.
    pub(crate) fetches: Vec<u64>,
    /// A fetch breaks off after so many bytes.
    pub(crate) fetch_limit: Option<usize>,
    /// First byte and length of every fetch.
    pub(crate) ranges: Vec<(u64, u64)>,
    /// Every output that was taken: task, blob, bytes.
    pub(crate) outputs: Vec<(String, String, Vec<u8>)>,
    /// An upload breaks off after so many bytes.
    pub(crate) output_limit: Option<usize>,
    /// Outputs are not taken, and why.
    pub(crate) output_refusal: Option<String>,
    /// The next output is taken, and the answer lost.
    pub(crate) lose_answer: bool,
    /// A log call breaks off after so many batches.
    pub(crate) ship_limit: Option<u32>,
    pub(crate) mirrors: BTreeMap<(String, u32, String), Mirror>,
    pub(crate) logs: tempfile::TempDir,
    desired: Option<v1::DesiredSet>,
    session: Option<mpsc::UnboundedSender<Result<v1::CoordinatorMessage, Status>>>,
}

/// A coordinator, running or not.
pub(crate) struct Coordinator {
    pub(crate) state: Arc<Mutex<State>>,
    address: SocketAddr,
    /// Of its own: only with the runtime do all of its connections go.
    server: Option<tokio::runtime::Runtime>,
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Coordinator {
    pub(crate) async fn start() -> Self {
        let state = State {
            pki: Pki::new(),
            secret: "s3cret".to_owned(),
            certificate_life: Duration::from_secs(3600),
            renew_after_ms: 0,
            transport: String::new(),
            joins: 0,
            renewals: 0,
            pod_instance: None,
            pods: Vec::new(),
            token_used: None,
            hellos: Vec::new(),
            heard: Vec::new(),
            statuses: BTreeMap::new(),
            history: Vec::new(),
            forgotten: Vec::new(),
            acks: Vec::new(),
            pongs: Vec::new(),
            statistics: 0,
            facts: v1::Facts::default(),
            packages: Vec::new(),
            metrics: BTreeMap::new(),
            refusal: None,
            blobs: BTreeMap::new(),
            fetches: Vec::new(),
            fetch_limit: None,
            ranges: Vec::new(),
            outputs: Vec::new(),
            output_limit: None,
            output_refusal: None,
            lose_answer: false,
            ship_limit: None,
            mirrors: BTreeMap::new(),
            logs: tempfile::tempdir().unwrap(),
            desired: None,
            session: None,
        };
        let mut coordinator = Self {
            state: Arc::new(Mutex::new(state)),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            server: None,
        };
        coordinator.run().await;
        coordinator
    }

    /// Listens, on the same port as before if it ran before.
    pub(crate) async fn run(&mut self) {
        let address = self.address;
        let bind = || std::net::TcpListener::bind(address).map_err(|error| error.to_string());
        let listener = until("the coordinator's port", bind).await;
        listener.set_nonblocking(true).unwrap();
        self.address = listener.local_addr().unwrap();
        let tls = self.with(|state| state.pki.server_tls());
        let service = service::Service {
            state: self.state.clone(),
        };
        let server = Server::builder()
            .tls_config(tls)
            .unwrap()
            .add_service(v1::enrollment_server::EnrollmentServer::new(
                service.clone(),
            ))
            .add_service(v1::agents_server::AgentsServer::new(service));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            server
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        self.server = Some(runtime);
    }

    /// As if killed: every connection is gone.
    pub(crate) fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown_background();
        }
        self.with(|state| state.session = None);
    }

    /// Every connection is gone, but new ones are taken.
    pub(crate) async fn restart(&mut self) {
        self.stop();
        self.run().await;
    }

    pub(crate) fn endpoint(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn token(&self) -> String {
        self.with(|state| format!("berth1.{}.id1.{}", state.pki.hash, state.secret))
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap())
    }

    /// Gives out a desired set, now and to every later session.
    pub(crate) fn desire(&self, order: Order, specs: &[InstanceSpec]) {
        let set = v1::DesiredSet {
            order: Some(order.into()),
            instances: specs.iter().cloned().map(Into::into).collect(),
        };
        self.with(|state| state.desired = Some(set.clone()));
        self.send(Down::Desired(set));
    }

    /// Sends to the open session, if there is one.
    pub(crate) fn send(&self, message: Down) {
        self.with(|state| {
            if let Some(session) = &state.session {
                let _ = session.send(Ok(v1::CoordinatorMessage {
                    message: Some(message),
                }));
            }
        });
    }

    pub(crate) async fn acked(&self, count: usize) -> Vec<v1::DesiredAck> {
        until("acknowledgements", || {
            self.with(|state| {
                if state.acks.len() >= count {
                    Ok(state.acks.clone())
                } else {
                    Err(format!("{:?}", state.acks))
                }
            })
        })
        .await
    }

    pub(crate) async fn hello(&self, count: usize) -> v1::Hello {
        until("a hello", || {
            self.with(|state| {
                state
                    .hellos
                    .get(count - 1)
                    .cloned()
                    .ok_or_else(|| state.hellos.len().to_string())
            })
        })
        .await
    }

    /// Waits for an instance's status.
    pub(crate) async fn status(
        &self,
        id: &str,
        fits: impl Fn(&InstanceStatus) -> bool,
    ) -> InstanceStatus {
        until(&format!("a status of {id}"), || {
            self.with(|state| {
                let status = state.statuses.get(id);
                status
                    .filter(|status| fits(status))
                    .cloned()
                    .ok_or_else(|| format!("{status:?}"))
            })
        })
        .await
    }

    pub(crate) async fn phase(&self, id: &str, phase: Phase) -> InstanceStatus {
        self.status(id, |status| status.phase == phase).await
    }

    pub(crate) async fn forgotten(&self, id: &str) {
        until(&format!("{id} to be forgotten"), || {
            self.with(|state| {
                if state.forgotten.iter().any(|f| f == id) {
                    Ok(())
                } else {
                    Err(format!("{:?}", state.forgotten))
                }
            })
        })
        .await;
    }

    /// All lines of an instance that begin so, start after start.
    pub(crate) fn lines(&self, id: &str, begin: &str) -> Vec<String> {
        let dir = self.with(|state| state.logs.path().to_owned());
        let mut dirs: Vec<(u32, PathBuf)> = std::fs::read_dir(dir.join(id))
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path())
            .map(|path| {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                (name.split('-').next().unwrap().parse().unwrap(), path)
            })
            .collect();
        dirs.sort();
        let mut lines = Vec::new();
        for (_, dir) in dirs {
            for segment in segments(&dir).unwrap() {
                let bytes = std::fs::read(&segment.path).unwrap();
                for (_, frame) in Frames::new(&bytes).map_while(Result::ok) {
                    let text = String::from_utf8_lossy(frame.payload);
                    if frame.process_name().is_none() && text.starts_with(begin) {
                        lines.push(text.into_owned());
                    }
                }
            }
        }
        lines
    }
}
