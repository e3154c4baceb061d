//! What all threads of a gateway share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use berth_model::gateway::GatewayReport;
use berth_model::route::{Order, Table};
use tokio::sync::{Notify, watch};

use crate::config::GatewayConfig;
use crate::error::PublishError;
use crate::metrics::{ProcessMetrics, Scrape};
use crate::pulse::Pulse;
use crate::routing::{Registry, Routing};
use crate::upstream::Relays;

/// What threads are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Accept nobody yet: whoever connects waits in the sockets' queues.
    Wait,
    Run,
    /// Accept no more, finish what is under way.
    Drain(Drain),
    Stop,
}

/// How to drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Drain {
    /// What is not over then is cut off.
    pub(crate) until: Instant,
    /// Until then idle connections stay open: a client that uses one gets its answer with
    /// `connection: close`, where closing it could meet a request on its way.
    pub(crate) idle_until: Instant,
    /// Another process accepts on the same sockets, the admin port's among them.
    pub(crate) handed_over: bool,
}

#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Seen(AtomicU64);

pub(crate) struct Shared {
    pub(crate) config: GatewayConfig,
    pub(crate) table: Arc<ArcSwap<Routing>>,
    registry: Mutex<Registry>,
    /// Connects to relays; none until the coordinator has certified this gateway.
    pub(crate) relays: Arc<ArcSwapOption<Relays>>,
    /// For each thread, the sequence number of the newest table it has met.
    seen: Box<[Seen]>,
    /// The newest table's sequence number, to wake idle threads.
    pub(crate) published: watch::Sender<u64>,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) changed: Arc<Notify>,
    pub(crate) process: ProcessMetrics,
    pub(crate) pulse: Pulse,
    /// Threads that have ended.
    pub(crate) finished: watch::Sender<usize>,
    /// Connections that were cut off when a drain's time was up.
    pub(crate) abandoned: AtomicU64,
    /// Origin of the gateway's milliseconds.
    pub(crate) origin: Instant,
}

impl Shared {
    pub(crate) fn new(config: GatewayConfig, threads: usize) -> Self {
        let registry = Registry::new(threads, &config);
        Self {
            changed: Arc::clone(&registry.changed),
            config,
            table: Arc::new(ArcSwap::from_pointee(Routing::empty())),
            registry: Mutex::new(registry),
            relays: Arc::default(),
            seen: (0..threads).map(|_| Seen::default()).collect(),
            published: watch::Sender::new(0),
            phase: watch::Sender::new(Phase::Wait),
            process: ProcessMetrics::default(),
            pulse: Pulse::new(threads),
            finished: watch::Sender::new(0),
            abandoned: AtomicU64::new(0),
            origin: Instant::now(),
        }
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The gateway's milliseconds; never 0, which means "never" elsewhere.
    pub(crate) fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.origin);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    pub(crate) fn publish(&self, table: Table) -> Result<(), PublishError> {
        let mut registry = self.registry();
        let Some(routing) = registry.accept(table, &self.table.load())? else {
            return Ok(());
        };
        let sequence = routing.sequence;
        self.table.store(routing);
        // Still under the lock, so that sequence numbers are sent in their order.
        self.published.send_replace(sequence);
        registry.wake_queues();
        self.changed.notify_one();
        Ok(())
    }

    /// A thread has met a newer table: from now on it chooses from that one or a later one.
    pub(crate) fn saw(&self, thread: usize, sequence: u64) {
        self.seen[thread].0.store(sequence, Ordering::Release);
        self.changed.notify_one();
    }

    pub(crate) fn thread_count(&self) -> usize {
        self.seen.len()
    }

    fn smallest_seen(&self) -> u64 {
        let seen = self.seen.iter().map(|s| s.0.load(Ordering::Acquire));
        seen.min().unwrap_or(0)
    }

    pub(crate) fn current(&self) -> Option<Order> {
        self.registry().table().map(|table| table.version)
    }

    pub(crate) fn current_table(&self) -> Option<Arc<Table>> {
        self.registry().table()
    }

    pub(crate) fn report(&self) -> GatewayReport {
        let mut registry = self.registry();
        // First what is acknowledged, then the counts; see the crate's documentation.
        let acknowledged = registry.acknowledged(self.smallest_seen());
        GatewayReport {
            acknowledged: acknowledged.unwrap_or_default(),
            in_flight: registry.in_flight(),
            draining: matches!(*self.phase.borrow(), Phase::Drain(_) | Phase::Stop),
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        *self.phase.borrow() == Phase::Run && self.smallest_seen() > 0
    }

    pub(crate) fn metrics_text(&self) -> String {
        let mut registry = self.registry();
        let scrape = Scrape {
            process: &self.process,
            acknowledged: registry.acknowledged(self.smallest_seen()),
            revisions: registry.revisions(),
            services: registry.services(),
            in_flight: registry.in_flight(),
            current: registry.table().map(|table| table.version),
        };
        drop(registry);
        crate::metrics::render(&scrape)
    }
}
