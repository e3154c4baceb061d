//! The role `control`: everything put together.

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_logs::LogStore;
use berth_store::{BlobStore, PARTIAL_AGE, SqliteStore, UNUSED_AGE};
use rustls::ServerConfig;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::ControlConfig;
use crate::edge::Edge;
use crate::listen::{Limits, Listener};
use crate::pki::{
    Authority, Credentials, PkiError, ServerCertificate, remove, replace, server_config,
};
use crate::{api, chain, clusters, control, disk, rpc};

/// File with the address that the API listens on, in the data folder.
pub const ENDPOINT_FILE: &str = "endpoint";
/// The database, in the data folder.
pub const DATABASE_FILE: &str = "state.db";

/// Longest time for control to end at shutdown.
const CONTROL_END: Duration = Duration::from_secs(5);

/// How often what is beyond its retention is taken away.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// Why the coordinator does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data folder cannot be made.
    #[error("cannot make the folder {path}", path = path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's words.
        source: std::io::Error,
    },
    /// Keys, certificates or tokens.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The database.
    #[error(transparent)]
    Store(#[from] berth_store::StoreError),
    /// The packages' archives.
    #[error(transparent)]
    Blobs(#[from] berth_store::BlobError),
    /// The logs.
    #[error(transparent)]
    Logs(#[from] berth_logs::LogsError),
    /// The control actor does not start.
    #[error("control does not start")]
    Control(#[from] control::ControlError),
    /// The control actor ended by itself.
    #[error("control has ended: {0}; the process ends so that it is started anew")]
    ControlEnded(String),
}

/// A coordinator whose API is served.
pub struct Coordinator {
    address: SocketAddr,
    edge: Arc<Edge>,
    control: JoinHandle<Result<(), control::ControlError>>,
    serving: JoinHandle<()>,
}

impl Coordinator {
    /// Opens everything, starts control, and serves.
    pub async fn start(config: ControlConfig) -> Result<Self, RunError> {
        let dir = config.data_dir.clone();
        create_private(&dir)?;
        disk::give_up_reserve(&dir);
        // First of all, because it also locks the folder: a second coordinator stops here.
        let store = open_store(dir.join(DATABASE_FILE)).await?;
        // Whoever waits for it must not find that of the last run.
        remove(&dir.join(ENDPOINT_FILE))?;
        let authority = Arc::new(Authority::load_or_create(&dir)?);
        let credentials = Credentials::load_or_create(&dir)?;
        let certificate = ServerCertificate::create(
            Arc::clone(&authority),
            &dir,
            &names(&config),
            config.server_certificate_life.0,
        )?;
        let blobs = Arc::new(BlobStore::open(&dir.join("blobs"))?);
        let logs = Arc::new(LogStore::open(&dir.join("logs"), config.retention())?);
        let (handle, control) = control::start(control::Config {
            settings: config.plan_settings(),
            pod_key: authority.derive("berth: tokens of Pods"),
            clusters: clusters::infos(&config.clusters),
            transport: config.transport,
            ..control::Config::new(Arc::new(store), authority.key_hash())
        })
        .await?;
        let edge = Arc::new(Edge::new(
            handle,
            blobs,
            logs,
            Arc::clone(&authority),
            credentials,
            config.edge_settings(),
        ));
        let tls = server_config(&authority, Arc::clone(&certificate))?;
        let (address, serving) = serve(&config, Arc::clone(&edge), tls).await?;
        keep_house(&edge, certificate);
        tokio::spawn(disk::watch(Arc::clone(&edge), dir.clone()));
        let fleet = hex::encode(&authority.derive("berth: name of the fleet")[..8]);
        clusters::start(&config.clusters, &fleet, &edge);
        replace(
            &dir.join(ENDPOINT_FILE),
            format!("{address}\n").as_bytes(),
            0o644,
        )?;
        tracing::info!(%address, data = %dir.display(), "the coordinator serves");
        Ok(Self {
            address,
            edge,
            control,
            serving,
        })
    }

    /// The address that the API listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the edges share.
    pub fn edge(&self) -> &Arc<Edge> {
        &self.edge
    }

    /// Runs until `shutdown`, then ends what is open, and returns when the store is closed. Errors:
    /// control has ended by itself.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), RunError> {
        // Control has started when `start` returned. A store that is full or slow is no reason to start
        // anew; an actor that hangs is.
        berth_notify::ready(&format!("the API is at {}", self.address)).await;
        let control = &self.edge.control;
        let alive = berth_notify::watch(|| async {
            control.alive().await.map_err(|problem| problem.detail)
        });
        let early = tokio::select! {
            () = shutdown.cancelled() => None,
            ended = &mut self.control => Some(ended),
            never = alive => match never {},
        };
        tracing::info!("shutting down");
        berth_notify::stopping("finishing what is open");
        self.edge.shutdown.cancel();
        if let Err(error) = self.serving.await {
            tracing::error!(%error, "the listener ended badly");
        }
        // Control ends once nobody can ask it for anything any more.
        drop(self.edge);
        let ended = match early {
            Some(ended) => ended,
            None => match tokio::time::timeout(CONTROL_END, self.control).await {
                Ok(ended) => ended,
                Err(_) => {
                    tracing::warn!("control did not end in time; what it acknowledged is on disk");
                    return Ok(());
                }
            },
        };
        match ended {
            Ok(Ok(())) if shutdown.is_cancelled() => Ok(()),
            Ok(Ok(())) => Err(RunError::ControlEnded("it was not asked to".to_owned())),
            Ok(Err(error)) => Err(RunError::ControlEnded(chain(&error))),
            Err(error) => Err(RunError::ControlEnded(error.to_string())),
        }
    }
}

/// The configured names, and the address to listen on if it is one that clients can dial.
fn names(config: &ControlConfig) -> Vec<String> {
    let mut names = config.names.clone();
    if !config.listen.ip().is_unspecified() {
        names.push(config.listen.ip().to_string());
    }
    names
}

async fn open_store(path: PathBuf) -> Result<SqliteStore, RunError> {
    match tokio::task::spawn_blocking(move || SqliteStore::open(&path)).await {
        Ok(opened) => Ok(opened?),
        // Only a panic in there gets here.
        Err(error) => Err(RunError::ControlEnded(error.to_string())),
    }
}

async fn serve(
    config: &ControlConfig,
    edge: Arc<Edge>,
    tls: ServerConfig,
) -> Result<(SocketAddr, JoinHandle<()>), RunError> {
    let limits = Limits {
        connections: usize::try_from(config.max_connections).unwrap_or(usize::MAX),
        ..Limits::default()
    };
    let failed = |source| RunError::Listen {
        address: config.listen,
        source,
    };
    let counters = Arc::clone(&edge.figures.connections);
    let listener = Listener::bind(config.listen, limits, counters)
        .await
        .map_err(failed)?;
    let address = listener.address().map_err(failed)?;
    let router = api::router(&edge).merge(rpc::router(&edge));
    let shutdown = edge.shutdown.clone();
    Ok((address, tokio::spawn(listener.serve(tls, router, shutdown))))
}

/// Starts what happens by time alone; it ends at shutdown.
fn keep_house(edge: &Arc<Edge>, certificate: Arc<ServerCertificate>) {
    let shutdown = edge.shutdown.clone();
    tokio::spawn(async move {
        shutdown.run_until_cancelled(certificate.keep_fresh()).await;
    });
    tokio::spawn(crate::leavings::keep_removing(Arc::clone(edge)));
    let edge = Arc::clone(edge);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(SWEEP_EVERY);
        while edge
            .shutdown
            .run_until_cancelled(ticks.tick())
            .await
            .is_some()
        {
            match edge.logs.sweep().await {
                Ok(swept) => tracing::debug!(?swept, "swept the logs"),
                Err(error) => tracing::warn!(error = chain(&error), "cannot sweep the logs"),
            }
            if let Err(error) = edge.blobs.sweep(PARTIAL_AGE).await {
                tracing::warn!(error = chain(&error), "cannot sweep unfinished uploads");
            }
            match edge.remove_unused(UNUSED_AGE).await {
                Ok(0) => {}
                Ok(removed) => tracing::info!(removed, "removed blobs that nothing needs"),
                Err(error) => tracing::warn!(error, "cannot remove blobs that nothing needs"),
            }
        }
    });
}

/// Makes the data folder, for its owner only, if it is not there.
pub fn create_private(dir: &Path) -> Result<(), RunError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| RunError::Folder {
            path: dir.to_owned(),
            source,
        })
}
