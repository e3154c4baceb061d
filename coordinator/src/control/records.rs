//! Everything that control keeps, in memory and under which key in the store.

use std::collections::BTreeMap;

use berth_model::event::Event;
use berth_model::gateway::GatewayRecord;
use berth_model::id::{
    GatewayName, InstanceId, JobName, ModelName, NodeName, PoolName, ServiceName, Slot,
};
use berth_model::instance::InstanceRecord;
use berth_model::job::JobRecord;
use berth_model::node::NodeRecord;
use berth_model::pool::PoolRecord;
use berth_model::resources::Resources;
use berth_model::service::{ModelVersion, ServiceRecord};
use berth_model::token::TokenRecord;
use berth_store::{Op, Store};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ControlError;
use super::indexes::{NodeKeys, Whose};
use super::tracked::{Index, Reader, Tracked};

/// The store's epoch when a coordinator last finished looking around; a higher one means that the
/// store was restored from a backup in the meantime.
pub(crate) const LAST_EPOCH: &str = "/meta/last_epoch";
/// Raised by every start of a coordinator; also what fences its commits.
pub(crate) const TERM: &str = "/meta/term";
/// Written now and then after a failed commit, to learn when the store takes commits again.
pub(crate) const PROBE: &str = "/meta/probe";

const MODELS: &str = "/models/";
const POOLS: &str = "/pools/";
const SERVICES: &str = "/services/";
const INSTANCES: &str = "/instances/";
const JOBS: &str = "/jobs/";
const NODES: &str = "/nodes/";
const TOKENS: &str = "/tokens/";
const GATEWAYS: &str = "/gateways/";
const EVENTS: &str = "/events/";
const SEQ_MODELS: &str = "/seq/models/";
const SEQ_SERVICES: &str = "/seq/services/";
const SEQ_JOBS: &str = "/seq/jobs/";
const SEQ_ATTEMPTS: &str = "/seq/attempts/";
const META: &str = "/meta/";

/// The whole persisted state.
#[derive(Debug)]
pub(crate) struct Records {
    /// By name and serial.
    pub(crate) models: Tracked<(ModelName, u64), ModelVersion>,
    pub(crate) pools: Tracked<PoolName, PoolRecord>,
    pub(crate) services: Tracked<ServiceName, ServiceRecord>,
    pub(crate) instances: Tracked<InstanceId, InstanceRecord, Whose>,
    pub(crate) jobs: Tracked<JobName, JobRecord>,
    pub(crate) nodes: Tracked<NodeName, NodeRecord, NodeKeys>,
    pub(crate) tokens: Tracked<String, TokenRecord>,
    pub(crate) gateways: Tracked<GatewayName, GatewayRecord>,
    pub(crate) events: Tracked<u64, Event>,
    /// Highest serial ever given per model.
    pub(crate) serials: Tracked<ModelName, u64>,
    /// Highest number ever given to a job named after the model.
    pub(crate) job_numbers: Tracked<ModelName, u64>,
    /// Highest revision ever given per name of services and jobs; survives them.
    pub(crate) revisions: Tracked<ServiceName, u32>,
    /// Highest attempt ever committed per slot of the revisions that exist.
    pub(crate) attempts: Tracked<Slot, u32>,
    /// Control's own numbers, by whole key.
    pub(crate) meta: Tracked<String, u64>,
}

fn slot_text(slot: &Slot) -> String {
    format!("{}.{}.{}", slot.service, slot.revision, slot.ordinal)
}

fn slot_of(text: &str) -> Option<Slot> {
    // A slot is an instance identity without the attempt.
    format!("{text}.1")
        .parse::<InstanceId>()
        .ok()
        .map(|id| id.slot)
}

impl Records {
    #[cfg(test)]
    pub(crate) fn empty() -> Self {
        fn none<K: Ord + Clone, V: PartialEq, I: Index<K, V>>() -> Tracked<K, V, I> {
            Tracked::clean(BTreeMap::new())
        }
        Self {
            models: none(),
            pools: none(),
            services: none(),
            instances: none(),
            jobs: none(),
            nodes: none(),
            tokens: none(),
            gateways: none(),
            events: none(),
            serials: none(),
            job_numbers: none(),
            revisions: none(),
            attempts: none(),
            meta: none(),
        }
    }

    /// Reads everything. Errors: the store's, or a record that cannot be understood, with its key.
    pub(crate) async fn load(store: &dyn Store) -> Result<Self, ControlError> {
        let records = Self {
            models: load(store, MODELS, |m: &ModelVersion, _| {
                Some((m.name.clone(), m.serial))
            })
            .await?,
            pools: load(store, POOLS, |p: &PoolRecord, _| Some(p.name.clone())).await?,
            services: load(store, SERVICES, |s: &ServiceRecord, _| Some(s.name.clone())).await?,
            instances: load(store, INSTANCES, |i: &InstanceRecord, _| Some(i.id.clone())).await?,
            jobs: load(store, JOBS, |j: &JobRecord, _| Some(j.name.clone())).await?,
            nodes: load(store, NODES, |n: &NodeRecord, _| Some(n.name.clone())).await?,
            tokens: load(store, TOKENS, |t: &TokenRecord, _| Some(t.id.clone())).await?,
            gateways: load(store, GATEWAYS, |g: &GatewayRecord, _| Some(g.name.clone())).await?,
            events: load(store, EVENTS, |e: &Event, _| Some(e.seq)).await?,
            serials: load(store, SEQ_MODELS, |_: &u64, k| ModelName::new(k).ok()).await?,
            job_numbers: load(store, SEQ_JOBS, |_: &u64, k| ModelName::new(k).ok()).await?,
            revisions: load(store, SEQ_SERVICES, |_: &u32, k| ServiceName::new(k).ok()).await?,
            attempts: load(store, SEQ_ATTEMPTS, |_: &u32, k| slot_of(k)).await?,
            meta: load(store, META, |_: &u64, k| Some(format!("{META}{k}"))).await?,
        };
        records.check()?;
        Ok(records.reserved().watched())
    }

    /// Records from before reservations were kept say nothing of theirs: it is what was asked for.
    fn reserved(mut self) -> Self {
        let lacks = |r: &&InstanceRecord| r.reserved.is_none() && r.place.node().is_some();
        let records: Vec<InstanceRecord> = self.instances.values().filter(lacks).cloned().collect();
        for mut record in records {
            record.reserved = self.asked_for(&record.id);
            self.instances.put(record.id.clone(), record);
        }
        self
    }

    /// What an instance's revision, or a task's job, asks to be reserved.
    pub(crate) fn asked_for(&self, id: &InstanceId) -> Option<Resources> {
        let slot = &id.slot;
        let service = self.services.get(&slot.service);
        let revision = service.and_then(|s| s.revisions.get(&slot.revision));
        let job = self.jobs.get(slot.service.as_str());
        let job = job.filter(|job| job.revision == slot.revision);
        let key = revision
            .map(|r| (r.model.clone(), r.serial))
            .or_else(|| job.map(|job| (job.model.clone(), job.serial)))?;
        self.models.get(&key).map(|m| m.manifest.resources)
    }

    /// What there is of a service, or of the job of that name, in the order of revisions.
    pub(crate) fn instances_of<'a>(
        &'a self,
        name: &ServiceName,
    ) -> impl Iterator<Item = &'a InstanceRecord> + use<'a> {
        let name = name.clone();
        let slot = Slot {
            service: name.clone(),
            revision: 0,
            ordinal: 0,
        };
        let from = self.instances.range(InstanceId { slot, attempt: 0 }..);
        let mine = from.take_while(move |(id, _)| id.slot.service == name);
        mine.map(|(_, record)| record)
    }

    /// Notes for the planner, and for what is published, what changes: each for who asks for it, and for nobody else.
    pub(crate) fn watched(self) -> Self {
        let both = [Reader::Planner, Reader::Publisher];
        Self {
            models: self.models.watched(&[Reader::Publisher]),
            services: self.services.watched(&both),
            instances: self.instances.watched(&both),
            jobs: self.jobs.watched(&both),
            nodes: self.nodes.watched(&both),
            pools: self.pools.watched(&[Reader::Planner]),
            attempts: self.attempts.watched(&[Reader::Planner]),
            ..self
        }
    }

    /// Where something is left that the reader, who has just asked, did not take.
    #[cfg(test)]
    pub(crate) fn untaken(&self, reader: Reader) -> Vec<&'static str> {
        let left = [
            ("models", self.models.has_news(reader)),
            ("pools", self.pools.has_news(reader)),
            ("services", self.services.has_news(reader)),
            ("instances", self.instances.has_news(reader)),
            ("jobs", self.jobs.has_news(reader)),
            ("nodes", self.nodes.has_news(reader)),
            ("tokens", self.tokens.has_news(reader)),
            ("gateways", self.gateways.has_news(reader)),
            ("events", self.events.has_news(reader)),
            ("serials", self.serials.has_news(reader)),
            ("job_numbers", self.job_numbers.has_news(reader)),
            ("revisions", self.revisions.has_news(reader)),
            ("attempts", self.attempts.has_news(reader)),
            ("meta", self.meta.has_news(reader)),
        ];
        let left = left.into_iter().filter(|(_, left)| *left);
        left.map(|(table, _)| table).collect()
    }

    /// A revision whose model version is gone could not be run, and an agent must not stop what it
    /// runs because of that: better not to start at all.
    fn check(&self) -> Result<(), ControlError> {
        for service in self.services.values() {
            for revision in service.revisions.values() {
                let key = (revision.model.clone(), revision.serial);
                if !self.models.contains_key(&key) {
                    return Err(ControlError::MissingModel {
                        what: format!("service {} revision {}", service.name, revision.number),
                        key: model_key(&key),
                    });
                }
            }
        }
        for job in self.jobs.values().filter(|job| !job.state.is_over()) {
            let key = (job.model.clone(), job.serial);
            if !self.models.contains_key(&key) {
                return Err(ControlError::MissingModel {
                    what: format!("job {}", job.name),
                    key: model_key(&key),
                });
            }
        }
        Ok(())
    }

    /// What has changed since the last call. Counters come first and events last, should a change
    /// ever be too large for one transaction.
    pub(crate) fn take_changes(&mut self) -> Result<Vec<Op>, ControlError> {
        let mut out = Vec::new();
        collect(&mut out, &mut self.meta, Clone::clone)?;
        collect(&mut out, &mut self.serials, |k| format!("{SEQ_MODELS}{k}"))?;
        collect(&mut out, &mut self.job_numbers, |k| {
            format!("{SEQ_JOBS}{k}")
        })?;
        collect(&mut out, &mut self.revisions, |k| {
            format!("{SEQ_SERVICES}{k}")
        })?;
        collect(&mut out, &mut self.attempts, |k| {
            format!("{SEQ_ATTEMPTS}{}", slot_text(k))
        })?;
        collect(&mut out, &mut self.models, model_key)?;
        // What services and jobs are placed by comes before them, and goes after them.
        collect(&mut out, &mut self.nodes, |k| format!("{NODES}{k}"))?;
        let mut pools = Vec::new();
        collect(&mut pools, &mut self.pools, |k| format!("{POOLS}{k}"))?;
        let (gone, pools): (Vec<Op>, Vec<Op>) = pools
            .into_iter()
            .partition(|op| matches!(op, Op::Delete(_)));
        out.extend(pools);
        collect(&mut out, &mut self.services, |k| format!("{SERVICES}{k}"))?;
        collect(&mut out, &mut self.jobs, |k| format!("{JOBS}{k}"))?;
        out.extend(gone);
        collect(&mut out, &mut self.tokens, |k| format!("{TOKENS}{k}"))?;
        collect(&mut out, &mut self.gateways, |k| format!("{GATEWAYS}{k}"))?;
        collect(&mut out, &mut self.instances, |k| format!("{INSTANCES}{k}"))?;
        collect(&mut out, &mut self.events, |k| format!("{EVENTS}{k:020}"))?;
        Ok(out)
    }
}

fn model_key((name, serial): &(ModelName, u64)) -> String {
    format!("{MODELS}{name}/{serial}")
}

async fn load<K, V, I>(
    store: &dyn Store,
    prefix: &str,
    key_of: impl Fn(&V, &str) -> Option<K>,
) -> Result<Tracked<K, V, I>, ControlError>
where
    K: Ord + Clone,
    V: DeserializeOwned + PartialEq,
    I: Index<K, V>,
{
    let mut map = BTreeMap::new();
    for entry in store.list(prefix).await?.entries {
        let value: V = serde_json::from_slice(&entry.value).map_err(|source| {
            let key = entry.key.clone();
            ControlError::Record { key, source }
        })?;
        let rest = entry.key.strip_prefix(prefix).unwrap_or_default();
        let Some(key) = key_of(&value, rest) else {
            return Err(ControlError::Misplaced { key: entry.key });
        };
        map.insert(key, value);
    }
    Ok(Tracked::clean(map))
}

fn collect<K: Ord + Clone, V: Serialize + PartialEq, I: Index<K, V>>(
    out: &mut Vec<Op>,
    table: &mut Tracked<K, V, I>,
    text: impl Fn(&K) -> String,
) -> Result<(), ControlError> {
    for key in table.take_dirty() {
        let name = text(&key);
        out.push(match table.get(&key).map(serde_json::to_vec) {
            None => Op::Delete(name),
            Some(Ok(value)) => Op::Put(name, value),
            Some(Err(source)) => return Err(ControlError::Record { key: name, source }),
        });
    }
    Ok(())
}
