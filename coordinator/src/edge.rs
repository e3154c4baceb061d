//! What every edge of the coordinator (REST, agents' sessions, gateways) has at hand.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use berth_logs::LogStore;
use berth_model::relay::Transport;
use berth_store::BlobStore;
use tokio::sync::{RwLock, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::control::Handle;
use crate::listen::Counters;
use crate::modules::Modules;
use crate::pki::{Authority, Credentials};

/// Packages that are verified at a time: each takes a core and reads the whole archive.
const VERIFYING: usize = 2;

/// What the edges share.
pub struct Edge {
    /// The control actor.
    pub control: Handle,
    /// The packages' archives.
    pub blobs: Arc<BlobStore>,
    /// The instances' logs.
    pub logs: Arc<LogStore>,
    /// Signs nodes' certificates.
    pub authority: Arc<Authority>,
    /// The bearer tokens.
    pub credentials: Credentials,
    /// Deadlines and limits.
    pub settings: Settings,
    /// Cancelled when the process shall end: everything that streams ends then.
    pub shutdown: CancellationToken,
    /// What is counted for `/metrics`.
    pub figures: Figures,
    /// What modules say of themselves.
    pub modules: Arc<Modules>,
    /// Places for packages that are being verified.
    pub verifying: Semaphore,
    /// Held for reading while something begins to need blobs, for writing while some are removed.
    pub inputs: RwLock<()>,
}

/// Deadlines and limits of the edges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long a node's certificate is valid.
    pub node_certificate_life: Duration,
    /// How often an agent shall be heard of.
    pub heartbeat: Duration,
    /// Silence after which a node is lost.
    pub node_lease: Duration,
    /// Largest archive, in bytes.
    pub max_blob: u64,
    /// Longest pause within an upload.
    pub upload_idle: Duration,
    /// How gateways reach instances on nodes.
    pub transport: Transport,
}

/// 24 h certificates, 5 s heartbeats, 30 s lease, 64 GiB archives, 30 s pauses.
impl Default for Settings {
    fn default() -> Self {
        Self {
            node_certificate_life: Duration::from_secs(24 * 3600),
            heartbeat: Duration::from_secs(5),
            node_lease: Duration::from_secs(30),
            max_blob: 64 << 30,
            upload_idle: Duration::from_secs(30),
            transport: Transport::default(),
        }
    }
}

impl Edge {
    /// Puts together what the edges share.
    pub fn new(
        control: Handle,
        blobs: Arc<BlobStore>,
        logs: Arc<LogStore>,
        authority: Arc<Authority>,
        credentials: Credentials,
        settings: Settings,
    ) -> Self {
        Self {
            control,
            blobs,
            logs,
            authority,
            credentials,
            settings,
            shutdown: CancellationToken::new(),
            figures: Figures::default(),
            modules: Arc::default(),
            verifying: Semaphore::new(VERIFYING),
            inputs: RwLock::new(()),
        }
    }
}

/// What the edges count.
#[derive(Default)]
pub struct Figures {
    /// The listener's counters.
    pub connections: Arc<Counters>,
    /// Bytes of archives that were taken in.
    pub uploaded: AtomicU64,
    /// Bytes of archives that were sent to nodes and clients.
    pub downloaded: AtomicU64,
    /// Size of the file system of the data folder.
    pub disk_bytes: AtomicU64,
    /// What is free there.
    pub disk_free_bytes: AtomicU64,
    /// Agents' sessions that are open.
    pub sessions: AtomicU64,
    /// Gateways that follow the route table.
    pub followers: AtomicU64,
    requests: Mutex<BTreeMap<(&'static str, &'static str, u16), u64>>,
    more: Mutex<Vec<Box<More>>>,
}

/// Writes further figures in Prometheus' text format.
type More = dyn Fn(&mut String) + Send + Sync;

impl Figures {
    /// Counts one request of the admin API.
    pub fn request(&self, method: &'static str, path: &'static str, status: u16) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((method, path, status)).or_default() += 1;
    }

    /// Has somebody else's figures rendered with these.
    pub fn add(&self, more: impl Fn(&mut String) + Send + Sync + 'static) {
        let mut all = self.more.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Box::new(more));
    }

    /// Prometheus' text format.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let singles = [
            (
                "berth_api_connections_total",
                "counter",
                &self.connections.accepted,
            ),
            (
                "berth_api_connections_refused_total",
                "counter",
                &self.connections.refused,
            ),
            (
                "berth_api_handshakes_failed_total",
                "counter",
                &self.connections.failed_handshakes,
            ),
            ("berth_blob_uploaded_bytes_total", "counter", &self.uploaded),
            (
                "berth_blob_downloaded_bytes_total",
                "counter",
                &self.downloaded,
            ),
            ("berth_disk_bytes", "gauge", &self.disk_bytes),
            ("berth_disk_free_bytes", "gauge", &self.disk_free_bytes),
            ("berth_agent_sessions", "gauge", &self.sessions),
            ("berth_gateway_followers", "gauge", &self.followers),
        ];
        for (name, kind, value) in singles {
            let value = value.load(Ordering::Relaxed);
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# TYPE {name} {kind}\n{name} {value}");
        }
        let _ = writeln!(text, "# TYPE berth_api_requests_total counter");
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        for ((method, path, status), count) in requests.iter() {
            let _ = writeln!(
                text,
                "berth_api_requests_total{{method=\"{method}\",path=\"{path}\",status=\"{status}\"}} {count}"
            );
        }
        drop(requests);
        for more in &*self.more.lock().unwrap_or_else(PoisonError::into_inner) {
            more(&mut text);
        }
        text
    }
}

/// A gauge that is one higher for as long as this lives.
pub(crate) struct Counted<'a>(&'a AtomicU64);

impl<'a> Counted<'a> {
    pub(crate) fn new(gauge: &'a AtomicU64) -> Self {
        gauge.fetch_add(1, Ordering::Relaxed);
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
