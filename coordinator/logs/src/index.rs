//! Which streams there are, how long they are, and who waits for more.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_model::id::ServiceName;
use tokio::sync::watch;

use crate::{Scope, StreamKey};

/// One stream and its durable length, if it is known already.
pub(crate) type Known = (StreamKey, Option<u64>);

#[derive(Debug)]
struct Service {
    streams: BTreeMap<StreamKey, Option<u64>>,
    tick: watch::Sender<()>,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            streams: BTreeMap::new(),
            tick: watch::Sender::new(()),
        }
    }
}

/// The streams in memory, by service.
#[derive(Debug, Default)]
pub(crate) struct Index(Mutex<HashMap<ServiceName, Service>>);

impl Index {
    /// Of streams whose lengths are not known yet.
    pub(crate) fn new(streams: Vec<StreamKey>) -> Self {
        let mut services: HashMap<ServiceName, Service> = HashMap::new();
        for key in streams {
            let service = key.instance.slot.service.clone();
            services
                .entry(service)
                .or_default()
                .streams
                .insert(key, None);
        }
        Self(Mutex::new(services))
    }

    fn services(&self) -> MutexGuard<'_, HashMap<ServiceName, Service>> {
        // Nothing can panic halfway through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a stream's durable length, and wakes those who wait if it is news.
    pub(crate) fn set(&self, key: &StreamKey, durable: u64) {
        let mut services = self.services();
        let service = services
            .entry(key.instance.slot.service.clone())
            .or_default();
        if service.streams.get(key) != Some(&Some(durable)) {
            service.streams.insert(key.clone(), Some(durable));
            service.tick.send_replace(());
        }
    }

    /// Notes the length of a stream that nobody has opened for writing; it is not news.
    pub(crate) fn learn(&self, key: &StreamKey, durable: u64) {
        if let Some(service) = self.services().get_mut(&key.instance.slot.service)
            && let Some(known) = service.streams.get_mut(key)
        {
            known.get_or_insert(durable);
        }
    }

    /// The streams of a scope, in their order.
    pub(crate) fn streams(&self, scope: &Scope) -> Vec<Known> {
        let services = self.services();
        let Some(service) = services.get(scope.service()) else {
            return Vec::new();
        };
        let all = service
            .streams
            .iter()
            .map(|(key, durable)| (key.clone(), *durable));
        match scope {
            Scope::Service(_) => all.collect(),
            Scope::Instance(id) => all.filter(|(key, _)| key.instance == *id).collect(),
        }
    }

    /// All streams.
    pub(crate) fn all(&self) -> Vec<StreamKey> {
        let services = self.services();
        services
            .values()
            .flat_map(|service| service.streams.keys().cloned())
            .collect()
    }

    /// Tells whenever a stream of the service has become longer, or is new.
    pub(crate) fn subscribe(&self, service: &ServiceName) -> watch::Receiver<()> {
        let mut services = self.services();
        services
            .entry(service.clone())
            .or_default()
            .tick
            .subscribe()
    }

    /// Forgets a stream.
    pub(crate) fn remove(&self, key: &StreamKey) {
        if let Some(service) = self.services().get_mut(&key.instance.slot.service) {
            service.streams.remove(key);
        }
    }

    /// Forgets a service's streams. Who follows it goes on waiting: a service of that name may come.
    pub(crate) fn remove_service(&self, name: &ServiceName) {
        let mut services = self.services();
        if let Some(service) = services.get_mut(name) {
            service.streams.clear();
            if service.tick.receiver_count() == 0 {
                services.remove(name);
            }
        }
    }
}
