//! The connection with the Docker daemon, in a thread of its own: the runtime's calls are synchronous, the client's
//! are not, and a daemon that hangs must hold up nobody.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bollard::Docker;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};

use super::error::DaemonError;
use crate::runtime::Availability;

/// How long an ordinary request may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// How long the daemon may take to say that it is there.
const PING: Duration = Duration::from_secs(5);

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(5);

/// A daemon, there or not. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Daemon {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    socket: PathBuf,
    thread: Handle,
    client: Mutex<Option<Docker>>,
    availability: watch::Sender<Availability>,
    /// It was looked once.
    looked: AtomicBool,
    /// Look now.
    look: Arc<Notify>,
    /// Dropped with the last clone: the thread ends.
    _alive: oneshot::Sender<()>,
}

/// A daemon that is let go when nobody else has it.
#[derive(Debug, Clone)]
pub(super) struct WeakDaemon(Weak<Inner>);

impl WeakDaemon {
    /// The daemon, while somebody has it.
    pub(super) fn upgrade(&self) -> Option<Daemon> {
        self.0.upgrade().map(|inner| Daemon { inner })
    }
}

impl Daemon {
    /// Begins to look after the daemon at `socket`. `wanted`: it should be there. Errors: no thread can be had.
    pub(super) fn new(socket: &Path, wanted: bool) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = runtime.handle().clone();
        let (alive, ended) = oneshot::channel::<()>();
        std::thread::Builder::new()
            .name("docker".to_owned())
            .spawn(move || {
                // Resolves when the sender is dropped.
                let _ = runtime.block_on(ended);
            })?;
        let look = Arc::new(Notify::new());
        let daemon = Self {
            inner: Arc::new(Inner {
                socket: socket.to_owned(),
                thread,
                client: Mutex::default(),
                availability: watch::Sender::new(Availability::NotHere),
                looked: AtomicBool::new(false),
                look: look.clone(),
                _alive: alive,
            }),
        };
        let weak = daemon.downgrade();
        daemon.inner.thread.spawn(async move {
            while let Some(daemon) = weak.upgrade() {
                daemon.look(wanted).await;
                drop(daemon);
                let _ = tokio::time::timeout(EVERY, look.notified()).await;
            }
        });
        Ok(daemon)
    }

    /// Whether it works, as it changes.
    pub(super) fn availability(&self) -> watch::Receiver<Availability> {
        self.inner.availability.subscribe()
    }

    /// For tasks that must not keep it.
    pub(super) fn downgrade(&self) -> WeakDaemon {
        WeakDaemon(Arc::downgrade(&self.inner))
    }

    /// Runs on the daemon's thread, with nobody waiting for it.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.inner.thread.spawn(task);
    }

    async fn look(&self, wanted: bool) {
        let asked = self.call(PING, |docker| async move { docker.ping().await.map(drop) });
        let now = match asked.await {
            Ok(()) => Availability::Works,
            Err(error) => {
                let known = wanted || *self.inner.availability.borrow() != Availability::NotHere;
                if known || self.inner.socket.exists() {
                    Availability::Broken {
                        message: format!(
                            "{}; its containers that still run go on, and none is started until it answers: look at \
                             `systemctl status docker`, and whether this agent may use the socket",
                            crate::chain(&error)
                        ),
                    }
                } else {
                    Availability::NotHere
                }
            }
        };
        // The first look is always news: whoever begins waits for it.
        let first = !self.inner.looked.swap(true, Ordering::Relaxed);
        self.inner.availability.send_if_modified(|before| {
            let changed = first || *before != now;
            *before = now;
            changed
        });
    }

    async fn client(&self) -> Result<Docker, bollard::errors::Error> {
        let known = self
            .inner
            .client
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(client) = known {
            return Ok(client);
        }
        let socket = self.inner.socket.to_string_lossy();
        // Deadlines are this module's own: an image may take an hour to build.
        let day = 24 * 3600;
        let client = Docker::connect_with_unix(&socket, day, bollard::API_DEFAULT_VERSION)?;
        let client = client.negotiate_version().await?;
        let mut known = self
            .inner
            .client
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Ok(known.insert(client).clone())
    }

    /// Asks the daemon for something, from any runtime.
    pub(super) async fn call<T, F>(
        &self,
        limit: Duration,
        ask: impl FnOnce(Docker) -> F + Send + 'static,
    ) -> Result<T, DaemonError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, bollard::errors::Error>> + Send + 'static,
    {
        let asking = self.inner.thread.spawn(self.clone().ask(limit, ask));
        asking.await.unwrap_or_else(|_| Err(self.slow(limit)))
    }

    /// Asks the daemon for something and waits. Not to be called where nothing may block.
    pub(super) fn wait_for<T, F>(
        &self,
        limit: Duration,
        ask: impl FnOnce(Docker) -> F + Send + 'static,
    ) -> Result<T, DaemonError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, bollard::errors::Error>> + Send + 'static,
    {
        let (tell, told) = std::sync::mpsc::channel();
        let asking = self.clone().ask(limit, ask);
        self.inner.thread.spawn(async move {
            // Nobody waits any more if the limit is over.
            let _ = tell.send(asking.await);
        });
        let margin = Duration::from_secs(1);
        told.recv_timeout(limit + margin)
            .unwrap_or_else(|_| Err(self.slow(limit)))
    }

    fn slow(&self, after: Duration) -> DaemonError {
        DaemonError::Slow {
            socket: self.inner.socket.clone(),
            after,
        }
    }

    async fn ask<T, F>(
        self,
        limit: Duration,
        ask: impl FnOnce(Docker) -> F + Send + 'static,
    ) -> Result<T, DaemonError>
    where
        F: Future<Output = Result<T, bollard::errors::Error>> + Send + 'static,
    {
        let asked = async { ask(self.client().await?).await };
        let result = match tokio::time::timeout(limit, asked).await {
            Ok(result) => result.map_err(|error| DaemonError::of(&self.inner.socket, error, limit)),
            Err(_) => Err(self.slow(limit)),
        };
        if let Err(DaemonError::Away { .. } | DaemonError::Slow { .. }) = &result {
            // Another daemon may come in its place, of another version.
            *self
                .inner
                .client
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = None;
            if *self.inner.availability.borrow() == Availability::Works {
                self.inner.look.notify_one();
            }
        }
        result
    }
}
