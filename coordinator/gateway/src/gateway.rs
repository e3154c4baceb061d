//! Starting, feeding, watching and stopping a gateway.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use berth_model::gateway::GatewayReport;
use berth_model::id::InstanceId;
use berth_model::route::{Order, Table};
use tokio::runtime;

use crate::config::GatewayConfig;
use crate::error::{GatewayError, PublishError};
use crate::listen::Sockets;
use crate::shared::{Drain, Phase, Shared};
use crate::upstream::{RelayIdentity, Relays};
use crate::worker::Worker;
use crate::{admin, tls, worker};

/// A running gateway. Dropping it stops its threads at once; see [`Handle::drain`] for the polite way.
pub struct Gateway {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    addr: SocketAddr,
    admin_addr: SocketAddr,
}

/// What the process around a gateway holds of it; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

impl Gateway {
    /// Listens, starts the threads and accepts connections. Until a table is published, requests get 503
    /// `no-instance`. Errors: an address is taken or not local, the certificate cannot be used, no threads.
    pub fn bind(config: GatewayConfig) -> Result<Self, GatewayError> {
        let sockets = Sockets::bind(&config, Vec::new(), None)?;
        let gateway = Self::prepare(config, sockets)?;
        gateway.open();
        Ok(gateway)
    }

    /// Starts the threads, which accept no connection before [`Self::open`]. Tables can be published
    /// meanwhile. Errors: the certificate cannot be used, no threads.
    pub fn prepare(config: GatewayConfig, sockets: Sockets) -> Result<Self, GatewayError> {
        let tls = config.tls.as_ref().map(tls::acceptor).transpose()?;
        let count = config.thread_count();
        let (addr, admin_addr) = (sockets.addr()?, sockets.admin_addr()?);
        let admin = sockets.admin;
        let mut shares: Vec<Vec<TcpListener>> = (0..count).map(|_| Vec::new()).collect();
        for (index, listener) in sockets.clients.into_iter().enumerate() {
            shares[index % count].push(listener);
        }
        let shared = Arc::new(Shared::new(config, count));
        let mut gateway = Self {
            shared: Arc::clone(&shared),
            threads: Vec::with_capacity(count + 1),
            addr,
            admin_addr,
        };
        for (index, listeners) in shares.into_iter().enumerate() {
            let (tls, shared) = (tls.clone(), Arc::clone(&shared));
            let finished = Finished(Arc::clone(&shared));
            gateway.start(&format!("gateway-{index}"), finished, move || {
                let listeners = listeners.into_iter();
                let listeners = listeners.map(tokio::net::TcpListener::from_std);
                let listeners = listeners.collect::<std::io::Result<Vec<_>>>()?;
                Ok(async move {
                    let worker = Rc::new(Worker::new(shared, index));
                    worker::run(worker, listeners, tls).await;
                })
            })?;
        }
        let for_admin = Arc::clone(&shared);
        gateway.start("gateway-admin", (), move || {
            let listener = tokio::net::TcpListener::from_std(admin)?;
            Ok(admin::run(for_admin, listener))
        })?;
        Ok(gateway)
    }

    /// Accepts connections from now on.
    pub fn open(&self) {
        self.shared.phase.send_if_modified(|phase| {
            let waits = *phase == Phase::Wait;
            if waits {
                *phase = Phase::Run;
            }
            waits
        });
    }

    /// Runs a future on a new thread with a runtime of its own; returns once that is up. `last` is dropped
    /// when the thread has let go of everything else, its connections above all.
    fn start<F: Future<Output = ()>>(
        &mut self,
        name: &str,
        last: impl Send + 'static,
        make: impl FnOnce() -> std::io::Result<F> + Send + 'static,
    ) -> Result<(), GatewayError> {
        let (up, is_up) = mpsc::sync_channel(1);
        let thread = Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                // Declared first, so dropped after the runtime.
                let _last = last;
                let made = runtime::Builder::new_current_thread()
                    .enable_all()
                    .build_local(runtime::LocalOptions::default());
                let runtime = match made {
                    Ok(runtime) => runtime,
                    Err(e) => return drop(up.send(Err(e))),
                };
                let entered = runtime.enter();
                let future = match make() {
                    Ok(future) => future,
                    Err(e) => return drop(up.send(Err(e))),
                };
                drop(entered);
                if up.send(Ok(())).is_ok() {
                    runtime.block_on(future);
                }
            })
            .map_err(GatewayError::Thread)?;
        self.threads.push(thread);
        let gone = || std::io::Error::other("the thread ended while starting");
        let started = is_up.recv().unwrap_or_else(|_| Err(gone()));
        started.map_err(GatewayError::Thread)
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where `/metrics`, `/healthz` and `/readyz` are.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// To feed and watch it.
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.shared.phase.send_replace(Phase::Stop);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a gateway thread panicked");
            }
        }
    }
}

/// Counts a thread as finished when it is dropped, however that comes about.
struct Finished(Arc<Shared>);

impl Drop for Finished {
    fn drop(&mut self) {
        self.0.finished.send_modify(|count| *count += 1);
    }
}

impl Handle {
    /// Puts a table in force: requests that choose an instance from now on use it. The same table again
    /// is fine. Errors: it is older than the one in force, or another one under the same version.
    pub fn publish(&self, table: Table) -> Result<(), PublishError> {
        self.0.publish(table)
    }

    /// Shows this identity to relays from the next connection on. Errors: it cannot be used; the last one stays.
    pub fn identify(&self, identity: &RelayIdentity) -> Result<(), GatewayError> {
        let relays = Relays::new(identity)?;
        self.0.relays.store(Some(Arc::new(relays)));
        Ok(())
    }

    /// The version of the table in force; none before the first.
    pub fn table_version(&self) -> Option<Order> {
        self.0.current()
    }

    /// The table in force.
    pub fn table(&self) -> Option<Arc<Table>> {
        self.0.current_table()
    }

    /// What control waits for before it stops an instance: the newest table that every request from
    /// now on uses (or a later one), and *after that is read* the requests in flight by instance, also
    /// of instances that have left the table. The crate's documentation has the argument.
    pub fn report(&self) -> GatewayReport {
        self.0.report()
    }

    /// Requests in flight by instance; those with none are left out.
    pub fn in_flight(&self) -> Vec<(InstanceId, u64)> {
        self.0.report().in_flight
    }

    /// Waits until [`Self::report`] may say something new that control waits for: a thread has reached a
    /// newer table, or an instance that left the table has no request any more. For one waiter.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// Whether a table is in force on every thread and connections are accepted.
    pub fn is_ready(&self) -> bool {
        self.0.is_ready()
    }

    /// Asks all threads whether they turn; ends when all have answered, and never where one hangs.
    pub async fn alive(&self) {
        self.0.pulse.ask().await;
    }

    /// Metrics in Prometheus' text format.
    pub fn metrics_text(&self) -> String {
        self.0.metrics_text()
    }

    /// The configuration it runs with.
    pub fn config(&self) -> &GatewayConfig {
        &self.0.config
    }

    /// Stops in an orderly way: accepts no more connections, answers with `connection: close`, and
    /// returns when all connections are closed, or after `timeout`, when the rest is cut off. True if none
    /// had to be. The admin port answers until the [`Gateway`] is dropped. Needs a tokio runtime.
    pub async fn drain(&self, timeout: Duration) -> bool {
        const GRACE: Duration = Duration::from_secs(1);
        self.drain_with(timeout, (timeout / 4).min(GRACE), false)
            .await
    }

    /// Like [`Self::drain`], but for a gateway whose sockets another process has taken over: the admin
    /// port is that one's now, and as nothing waits for this one's end, idle connections stay open for
    /// half of the time.
    pub async fn drain_after_handover(&self, timeout: Duration) -> bool {
        self.drain_with(timeout, timeout / 2, true).await
    }

    async fn drain_with(&self, timeout: Duration, grace: Duration, handed_over: bool) -> bool {
        let shared = &self.0;
        let now = Instant::now();
        let drain = Drain {
            until: now + timeout,
            idle_until: now + grace,
            handed_over,
        };
        shared.phase.send_if_modified(|phase| {
            *phase = match *phase {
                Phase::Wait | Phase::Run => Phase::Drain(drain),
                // Only ever faster.
                Phase::Drain(before) => Phase::Drain(Drain {
                    until: before.until.min(drain.until),
                    idle_until: before.idle_until.min(drain.idle_until),
                    handed_over: before.handed_over || handed_over,
                }),
                Phase::Stop => return false,
            };
            true
        });
        let threads = shared.thread_count();
        let mut finished = shared.finished.subscribe();
        // The sender is in `shared`, which this borrows, so the channel cannot be closed.
        drop(finished.wait_for(|count| *count >= threads).await);
        shared.abandoned.load(Ordering::SeqCst) == 0
    }
}
