//! From a store to a running actor.

use std::sync::Arc;

use berth_model::relay::Transport;
use berth_model::route::Table;
use berth_plan::Settings;
use berth_store::{Guard, Store, Txn};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;

use super::actor::Actor;
use super::challenge::Challenges;
use super::clock::{Clock, SystemClock};
use super::clusters::{Cluster, ClusterInfo};
use super::events::Happened;
use super::live::Live;
use super::records::{LAST_EPOCH, Records, TERM};
use super::world::World;
use super::{ControlError, Handle, Metrics};

/// Commands that may wait; more make their senders wait.
const MAILBOX: usize = 1_024;
/// Events that a slow listener may lag behind before it misses some.
const EVENTS: usize = 1_024;

/// What control needs.
pub struct Config {
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// Leases and deadlines.
    pub settings: Settings,
    /// Where it has its time from.
    pub clock: Arc<dyn Clock>,
    /// base64url SHA-256 of the CA's SubjectPublicKeyInfo, for join tokens.
    pub ca_key_hash: String,
    /// Key of the Pods' tokens; the same after a restart.
    pub pod_key: [u8; 32],
    /// The configured clusters.
    pub clusters: Vec<ClusterInfo>,
    /// How gateways reach instances on nodes.
    pub transport: Transport,
}

impl Config {
    /// With default settings and the system's clock.
    pub fn new(store: Arc<dyn Store>, ca_key_hash: impl Into<String>) -> Self {
        Self {
            store,
            settings: Settings::default(),
            clock: Arc::new(SystemClock),
            ca_key_hash: ca_key_hash.into(),
            pod_key: [0; 32],
            clusters: Vec::new(),
            transport: Transport::default(),
        }
    }
}

/// Loads the state, begins a term, publishes the first route table and runs. When this returns,
/// control is ready.
///
/// The task ends with `Ok` when every handle is gone. Any other end, a panic included, is fatal: the
/// process must exit with an error, so that it is started anew. Errors: the store cannot be read or
/// written, or holds what this version does not understand.
pub async fn start(
    config: Config,
) -> Result<(Handle, JoinHandle<Result<(), ControlError>>), ControlError> {
    let (term, term_revision) = begin_term(config.store.as_ref()).await?;
    let records = Records::load(config.store.as_ref()).await?;
    let identity = config.store.identity().await?;
    let last_epoch = records.meta.get(LAST_EPOCH).copied();
    let restored = last_epoch.is_some_and(|last| last != identity.epoch);
    let (now, wall) = (config.clock.monotonic(), config.clock.wall());
    let mut world = World {
        records,
        live: Live::default(),
        settings: config.settings,
        ca_key_hash: config.ca_key_hash,
        pod_key: config.pod_key,
        clusters: config
            .clusters
            .into_iter()
            .map(|info| (info.name.clone(), Cluster::new(info, wall)))
            .collect(),
        transport: config.transport,
        started: now,
        now,
        wall,
        epoch: identity.epoch,
        term,
        revision: identity.revision,
        restored,
        settling: restored,
        planner: berth_plan::Planner::default(),
        waiting: Vec::new(),
        store_problem: None,
        disk: crate::disk::Found::default(),
        table: Arc::new(Table::default()),
        fresh: Vec::new(),
    };
    if restored {
        world.happened(&Happened::Restored);
    } else {
        let meta = &mut world.records.meta;
        meta.put(LAST_EPOCH.to_owned(), identity.epoch);
    }
    let (mailbox, commands) = mpsc::channel(MAILBOX);
    let (changed, changes) = watch::channel(0);
    let (events, _) = broadcast::channel(EVENTS);
    let metrics = Arc::new(Metrics::default());
    let mut actor = Actor {
        store: config.store,
        clock: config.clock,
        mailbox: commands,
        tables: watch::Sender::new(Arc::clone(&world.table)),
        challenges: Challenges::default(),
        changed,
        events,
        metrics: Arc::clone(&metrics),
        term_revision,
        groups: Vec::new(),
        answers: Vec::new(),
        stale: true,
        news: true,
        observed: None,
        unobserved: true,
        planned: now,
        wake: None,
        retry: None,
        world,
    };
    // The records alone make the first table: it loses nothing that served before the restart.
    actor.apply()?;
    actor.turn().await?;
    let handle = Handle {
        mailbox,
        changed: changes,
        metrics,
    };
    Ok((handle, tokio::spawn(actor.run())))
}

/// Raises the term, on disk before anything is sent in its name. Answers with it and the revision that
/// fences this coordinator's commits.
async fn begin_term(store: &dyn Store) -> Result<(u64, u64), ControlError> {
    let before = store.get(TERM).await?;
    let (last, guard) = match &before {
        None => (0, Guard::Absent(TERM.to_owned())),
        Some(entry) => {
            let last: u64 =
                serde_json::from_slice(&entry.value).map_err(|source| ControlError::Record {
                    key: TERM.to_owned(),
                    source,
                })?;
            (last, Guard::At(TERM.to_owned(), entry.mod_revision))
        }
    };
    let term = last + 1;
    let txn = Txn::new()
        .guard(guard)
        .put(TERM, term.to_string().into_bytes());
    store.commit(txn).await?;
    let entry = store.get(TERM).await?.ok_or(ControlError::TakenOver)?;
    if entry.value != term.to_string().into_bytes() {
        return Err(ControlError::TakenOver);
    }
    Ok((term, entry.mod_revision))
}
