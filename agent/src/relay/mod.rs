//! The agent's part of the node's relay: it writes the folder by which `berth-relay` works, has the relay's key
//! certified, and says where gateways find it.
//!
//! An instance's address is reported only once it is in the table on the disk, so that no gateway is sent to a
//! relay that does not know the instance.

mod certify;
mod mode;
mod watch;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use berth_model::id::{InstanceId, NodeName};
use berth_model::node::{Condition, Facts};
use berth_model::relay::{Caller, RelayFacts};
use berth_relay::folder::{FORMAT, IDENTITY, Identity, TABLE, Table, Target};
use tokio::sync::{mpsc, watch as changes};
use tonic::transport::Channel;

use self::mode::{Mode, Told, decide};
use crate::files::{FileError, read_optional, replace};
use crate::reconcile::Event;
use crate::rpc::board::Board;
use crate::rpc::machine::Machine;

/// The condition's kind.
const RELAY: &str = Condition::RELAY;
/// Readable by the relay's user, which is the group of the folder.
const MODE: u32 = 0o640;
/// For a name to be resolved.
const RESOLVE: Duration = Duration::from_secs(2);

/// Where a relay is, and whose.
#[derive(Debug, Clone)]
pub struct Place {
    /// The node's name.
    pub node: NodeName,
    /// The folder that the relay reads.
    pub folder: PathBuf,
    /// The file with the relay's figures.
    pub figures: PathBuf,
    /// Where the relay listens.
    pub listen: SocketAddr,
    /// The configured address of the node; loopback if there is none.
    pub address: IpAddr,
    /// The coordinator.
    pub endpoint: String,
    /// File with what the coordinator said last.
    pub told: PathBuf,
}

/// The agent's part of the node's relay. Shared; no lock is held while waiting, but the writer's.
pub struct Relay {
    /// None in a Pod, which has an address of its own.
    place: Option<Place>,
    inner: Mutex<Inner>,
    /// The table on disk. Held while it is written, so that an older one never replaces a newer one.
    written: tokio::sync::Mutex<Option<Table>>,
    board: Arc<Board>,
    events: mpsc::Sender<Event>,
    /// Wakes what works only while there is a relay.
    wake: changes::Sender<()>,
}

struct Inner {
    mode: Mode,
    callers: Vec<Caller>,
    instances: BTreeMap<InstanceId, Target>,
    /// Those in the table on disk.
    reached: BTreeMap<InstanceId, Target>,
    /// Hash of the relay's key, once it has a certificate.
    key: Option<String>,
    /// The address of this machine on the way to the coordinator.
    route: Option<IpAddr>,
    /// What is wrong, by what found it.
    troubles: BTreeMap<&'static str, String>,
}

impl Relay {
    /// Takes up what the last agent left.
    pub async fn open(
        place: Option<Place>,
        board: Arc<Board>,
        events: mpsc::Sender<Event>,
    ) -> Arc<Self> {
        let mut inner = Inner {
            mode: Mode::Direct,
            callers: Vec::new(),
            instances: BTreeMap::new(),
            reached: BTreeMap::new(),
            key: None,
            route: None,
            troubles: BTreeMap::new(),
        };
        let mut written = None;
        if let Some(place) = &place {
            let (mode, trouble) = decide(place.told(), place.same_machine(), place.address);
            inner.mode = mode;
            inner.trouble("transport", trouble);
            written = place.table();
            if let Some(table) = &written {
                inner.callers.clone_from(&table.callers);
                inner.instances.clone_from(&table.instances);
                inner.reached.clone_from(&table.instances);
            }
            inner.key = place.identity().as_ref().and_then(certify::key_of);
            inner.route = place.route().await;
        }
        let relay = Arc::new(Self {
            place,
            inner: Mutex::new(inner),
            written: tokio::sync::Mutex::new(written),
            board,
            events,
            wake: changes::Sender::new(()),
        });
        relay.tell();
        relay
    }

    /// Keeps the relay's certificate fresh and looks whether the relay is there and what it does, for ever.
    pub(crate) async fn work(
        self: Arc<Self>,
        connected: changes::Receiver<Option<Channel>>,
        machine: Arc<Machine>,
    ) {
        let Some(place) = self.place.clone() else {
            return std::future::pending().await;
        };
        tokio::join!(
            certify::keep_certified(&self, &place, connected),
            watch::keep_looking(&self, &place, &machine),
        );
    }

    /// What instances that are started now are told as HOST; none: the configured address.
    pub(crate) fn host(&self) -> Option<IpAddr> {
        match self.lock().mode {
            Mode::Direct => None,
            Mode::Relay | Mode::Nowhere => Some(Ipv4Addr::LOCALHOST.into()),
        }
    }

    /// The coordinator has said how gateways reach instances. Holds for what is started from now on.
    pub(crate) async fn welcome(&self, transport: &str) {
        let Some(place) = &self.place else { return };
        let told = Told::of(transport);
        if place.told() != Some(told) {
            // Not kept: it is told again with the next session.
            if let Err(error) = replace(&place.told, told.text().as_bytes(), 0o644) {
                tracing::warn!(error = crate::chain(&error), "cannot keep the transport");
            }
        }
        let route = place.route().await;
        let (mode, trouble) = decide(Some(told), place.same_machine(), place.address);
        {
            let mut inner = self.lock();
            if inner.mode != mode {
                tracing::info!(?mode, transport, "how instances are reached has changed");
            }
            inner.mode = mode;
            inner.route = route.or(inner.route);
            inner.trouble("transport", trouble);
        }
        self.write().await;
        self.tell();
        self.wake.send_replace(());
        self.nudge();
    }

    /// The coordinator has said who may come.
    pub(crate) async fn callers(&self, callers: Vec<Caller>) {
        self.lock().callers = callers;
        self.write().await;
    }

    /// What is to be reached: on disk when this returns, if that can be.
    pub(crate) async fn instances(&self, instances: BTreeMap<InstanceId, Target>) {
        {
            let mut inner = self.lock();
            if inner.instances == instances && inner.reached == instances {
                return;
            }
            inner.instances = instances;
        }
        self.write().await;
    }

    /// Whether gateways reach an instance at the address that it has.
    pub(crate) fn reaches(&self, id: &InstanceId, address: SocketAddr) -> bool {
        let inner = self.lock();
        let Some(place) = &self.place else {
            return true;
        };
        let alone = inner.key.is_none() || place.same_machine();
        if (inner.mode == Mode::Direct && alone) || !address.ip().is_loopback() {
            return true;
        }
        match inner.mode {
            Mode::Nowhere => false,
            // Direct: it was started before the fleet chose that.
            Mode::Direct | Mode::Relay => {
                let known = inner.reached.get(id) == Some(&Target::Tcp(address));
                known && self.facts(&inner).is_some()
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a relay to look after.
    fn is_active(&self) -> bool {
        let inner = self.lock();
        inner.mode == Mode::Relay || inner.key.is_some()
    }

    /// Brings the table to the disk, if there is news.
    async fn write(&self) {
        let Some(place) = self.place.as_ref().filter(|_| self.is_active()) else {
            return;
        };
        let mut written = self.written.lock().await;
        let table = {
            let inner = self.lock();
            Table {
                format: FORMAT,
                node: place.node.clone(),
                listen: place.listen,
                callers: inner.callers.clone(),
                instances: inner.instances.clone(),
            }
        };
        if written.as_ref() != Some(&table) {
            let (path, copy) = (place.folder.join(TABLE), table.clone());
            let done = tokio::task::spawn_blocking(move || write_json(&path, &copy)).await;
            let trouble = match done {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!(
                    "{}; what was started or stopped since is not passed on",
                    crate::chain(&error)
                )),
                Err(error) => Some(format!("writing its table broke off: {error}")),
            };
            let failed = trouble.is_some();
            self.trouble("table", trouble);
            if failed {
                return;
            }
            *written = Some(table.clone());
        }
        self.lock().reached = table.instances;
    }

    /// The relay has a certificate; its files are on disk.
    fn certified(&self, key: String) {
        self.lock().key = Some(key);
        self.tell();
        self.nudge();
    }

    /// Notes what is wrong, or that it is not.
    fn trouble(&self, what: &'static str, trouble: Option<String>) {
        let news = self.lock().trouble(what, trouble);
        if news {
            self.tell();
        }
    }

    /// Tells the coordinator where the relay is, and what is wrong.
    fn tell(&self) {
        let (facts, troubles) = {
            let inner = self.lock();
            let troubles: Vec<String> = inner.troubles.values().cloned().collect();
            (self.facts(&inner), troubles.join("; "))
        };
        self.board.facts(|known| note(known, facts, troubles));
    }

    fn facts(&self, inner: &Inner) -> Option<RelayFacts> {
        let place = self.place.as_ref()?;
        if inner.mode == Mode::Direct && place.same_machine() {
            return None;
        }
        let address = match place.address.is_loopback() {
            true => inner.route?,
            false => place.address,
        };
        Some(RelayFacts {
            address: SocketAddr::new(address, place.listen.port()),
            key: inner.key.clone()?,
        })
    }

    /// Has the reconciler publish anew. One whose mailbox is full is about to.
    fn nudge(&self) {
        let _ = self.events.try_send(Event::Relay);
    }
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl Inner {
    /// Whether that is news.
    fn trouble(&mut self, what: &'static str, trouble: Option<String>) -> bool {
        let before = match trouble.clone() {
            Some(trouble) => self.troubles.insert(what, trouble),
            None => self.troubles.remove(what),
        };
        if before == trouble {
            return false;
        }
        match &trouble {
            Some(trouble) => tracing::warn!(trouble, "relay"),
            None => tracing::info!(what, "the relay is as it should be again"),
        }
        true
    }
}

fn note(facts: &mut Facts, relay: Option<RelayFacts>, message: String) {
    facts.relay = relay;
    facts.conditions.retain(|known| known.kind != RELAY);
    if !message.is_empty() {
        facts.conditions.push(Condition {
            kind: RELAY.to_owned(),
            message,
        });
    }
}

impl Place {
    /// Whether the coordinator is dialled on loopback.
    fn same_machine(&self) -> bool {
        let endpoint = &self.endpoint;
        let host = endpoint
            .rsplit_once(':')
            .map_or(&**endpoint, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let loopback = |ip: IpAddr| ip.is_loopback();
        host == "localhost" || host.parse().is_ok_and(loopback)
    }

    fn told(&self) -> Option<Told> {
        let text = read_optional(&self.told).ok().flatten()?;
        String::from_utf8(text).ok()?.parse().ok()
    }

    /// What the relay was told last. One that cannot be read is written anew.
    fn table(&self) -> Option<Table> {
        Table::read(&self.folder).unwrap_or_else(|error| {
            tracing::warn!(
                error = crate::chain(&error),
                "the relay's table is written anew"
            );
            None
        })
    }

    fn identity(&self) -> Option<Identity> {
        Identity::read(&self.folder).unwrap_or_else(|error| {
            tracing::warn!(error = crate::chain(&error), "the relay gets a new key");
            None
        })
    }

    /// The address of this machine from which the coordinator is reached. Nothing is sent.
    async fn route(&self) -> Option<IpAddr> {
        let resolved = tokio::time::timeout(RESOLVE, tokio::net::lookup_host(&self.endpoint)).await;
        let to = resolved.ok()?.ok()?.next()?;
        let any: SocketAddr = match to {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
        };
        let socket = std::net::UdpSocket::bind(any).ok()?;
        socket.connect(to).ok()?;
        let address = socket.local_addr().ok()?.ip();
        (!address.is_unspecified()).then_some(address)
    }
}

/// Replaces a file of the relay's folder, which is made for this user alone if it is not there: where the relay has a
/// user of its own, the folder is made with that user's group.
fn write_json(path: &Path, content: &impl serde::Serialize) -> Result<(), FileError> {
    if let Some(folder) = path.parent() {
        crate::files::make_dir(folder)?;
    }
    let json = serde_json::to_vec(content).map_err(|error| FileError {
        what: "write",
        path: path.to_owned(),
        source: error.into(),
    })?;
    replace(path, &json, MODE)
}

/// Keeps an identity; none of the relay's files is ever half of the last one and half of the next.
fn keep(folder: &Path, identity: &Identity) -> Result<(), FileError> {
    write_json(&folder.join(IDENTITY), identity)
}

#[cfg(test)]
mod tests;
