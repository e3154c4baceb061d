//! What control's tests stand on: a store in memory that can fail and crash, a clock that follows
//! tokio's paused time, and small records.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use berth_model::digest::{BlobDigest, PackageDigest};
use berth_model::id::{InstanceId, ModelName, NodeName};
use berth_model::instance::{InstanceRecord, InstanceStatus, Phase, Stage};
use berth_model::manifest::{
    Health, Limits, Manifest, Model, ModelFormat, Module, ModuleKind, Package, Protocol,
    default_stop_grace,
};
use berth_model::node::{Facts, NodeKind, NodeRecord, RuntimeKind};
use berth_model::resources::Resources;
use berth_model::route::Table;
use berth_model::service::ModelVersion;
use berth_model::time::{Monotonic, Timestamp};
use berth_store::{Change, Entry, Identity, Listing, Op, Store, StoreError, Txn};
use tokio::sync::mpsc;

use super::Clock;
use super::live::Live;
use super::records::Records;
use super::world::World;

/// A clock that goes with tokio's, so that tests with paused time move leases too.
#[derive(Clone)]
pub(crate) struct TestClock(pub(crate) tokio::time::Instant);

impl Clock for TestClock {
    fn monotonic(&self) -> Monotonic {
        Monotonic(1_000_000 + u64::try_from(self.0.elapsed().as_millis()).unwrap())
    }
    fn wall(&self) -> Timestamp {
        Timestamp(1_700_000_000_000 + self.monotonic().0)
    }
}

/// What survives a crash.
#[derive(Default, Clone)]
pub(crate) struct Disk {
    entries: BTreeMap<String, (Vec<u8>, u64)>,
    revision: u64,
    pub(crate) epoch: u64,
}

impl Disk {
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }
}

/// What goes wrong, and when.
#[derive(Default, Clone, Copy)]
pub(crate) struct Fault {
    /// No room for anything.
    pub(crate) full: bool,
    /// Commits until there is no room any more; none means never.
    pub(crate) full_in: Option<u64>,
    /// Commits until the process dies; none means never.
    pub(crate) dies_in: Option<u64>,
    /// Whether the commit at which it dies is on disk.
    pub(crate) dies_after: bool,
}

/// A store in memory with the real one's rules. Clones share the disk.
#[derive(Clone)]
pub(crate) struct MemStore {
    pub(crate) disk: Arc<Mutex<Disk>>,
    pub(crate) fault: Arc<Mutex<Fault>>,
    pub(crate) died: Arc<tokio::sync::Notify>,
}

impl MemStore {
    pub(crate) fn on(disk: &Arc<Mutex<Disk>>) -> Self {
        Self {
            disk: Arc::clone(disk),
            fault: Arc::default(),
            died: Arc::default(),
        }
    }

    fn apply(&self, txn: &Txn) -> Result<u64, StoreError> {
        let mut disk = self.disk.lock().unwrap();
        txn.check()?;
        for guard in &txn.guards {
            let at = disk.entries.get(guard.key()).map(|(_, at)| *at);
            if !guard.holds(at) {
                let key = guard.key().to_owned();
                return Err(StoreError::Conflict { key });
            }
        }
        let revision = disk.revision + 1;
        let mut changed = false;
        for op in &txn.ops {
            changed |= match op {
                Op::Put(key, value) => {
                    disk.entries.insert(key.clone(), (value.clone(), revision));
                    true
                }
                Op::Delete(key) => disk.entries.remove(key).is_some(),
            };
        }
        disk.revision += u64::from(changed);
        Ok(disk.revision)
    }
}

#[async_trait]
impl Store for MemStore {
    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let disk = self.disk.lock().unwrap();
        let entries = disk
            .entries
            .range(prefix.to_owned()..)
            .take_while(|(k, _)| k.starts_with(prefix))
            .map(|(key, (value, at))| Entry {
                key: key.clone(),
                value: value.clone(),
                mod_revision: *at,
            })
            .collect();
        Ok(Listing {
            revision: disk.revision,
            entries,
        })
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        Ok(self
            .list(key)
            .await?
            .entries
            .into_iter()
            .find(|e| e.key == key))
    }

    async fn commit(&self, txn: Txn) -> Result<u64, StoreError> {
        // A real commit takes a moment, in which other tasks run.
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        let fault = {
            let mut fault = self.fault.lock().unwrap();
            fault.full |= fault.full_in == Some(0);
            if let Some(n) = fault.full_in.as_mut() {
                *n = n.saturating_sub(1);
            }
            if let Some(n) = fault.dies_in.as_mut() {
                *n = n.saturating_sub(1);
            }
            *fault
        };
        if fault.full {
            let path = "/full".into();
            return Err(StoreError::DiskFull { path });
        }
        let dies = fault.dies_in == Some(0);
        let outcome = if dies && !fault.dies_after {
            None
        } else {
            Some(self.apply(&txn))
        };
        match outcome {
            Some(outcome) if !dies => outcome,
            _ => {
                self.died.notify_one();
                std::future::pending().await
            }
        }
    }

    async fn watch(&self, _: &str, _: u64) -> Result<mpsc::Receiver<Change>, StoreError> {
        Err(StoreError::Compacted { oldest: 0 })
    }

    async fn identity(&self) -> Result<Identity, StoreError> {
        let disk = self.disk.lock().unwrap();
        Ok(Identity {
            epoch: disk.epoch,
            revision: disk.revision,
            schema: 1,
        })
    }
}

pub(crate) fn manifest(name: &str, version: &str) -> Manifest {
    Manifest {
        package: Package {
            name: ModelName::new(name).unwrap(),
            version: version.parse().unwrap(),
            description: String::new(),
            labels: BTreeMap::new(),
        },
        model: Model {
            path: "model".into(),
            format: ModelFormat::Custom,
            task: String::new(),
            metrics: BTreeMap::new(),
            inputs: serde_json::Value::Null,
            outputs: serde_json::Value::Null,
        },
        module: Module {
            kind: ModuleKind::Custom,
            command: vec!["./serve".into()],
            preset: None,
            env: BTreeMap::new(),
            predict_path: None,
            protocol: Protocol::Http1,
            stop_grace: default_stop_grace(),
            dockerfile: None,
            image: None,
        },
        tf_serving: None,
        transform: None,
        health: Health::default(),
        job: None,
        resources: Resources::default(),
        egress: Vec::new(),
        golden: Vec::new(),
        limits: Limits::default(),
    }
}

/// A model version whose digest follows from its name and version.
pub(crate) fn model_version(name: &str, version: &str, serial: u64) -> ModelVersion {
    let mut bytes = [0; 32];
    for (slot, byte) in bytes.iter_mut().zip(format!("{name}@{version}").bytes()) {
        *slot = byte;
    }
    ModelVersion {
        name: ModelName::new(name).unwrap(),
        version: version.parse().unwrap(),
        serial,
        digest: PackageDigest::from_bytes(bytes),
        blob: BlobDigest::from_bytes(bytes),
        blob_bytes: 10,
        unpacked_bytes: 20,
        manifest: manifest(name, version),
        pushed: Timestamp(0),
    }
}

pub(crate) fn facts(exclusive: bool) -> Facts {
    Facts {
        kind: NodeKind::Virtual,
        exclusive,
        capacity: Resources {
            cpu_millis: 4_000,
            memory_bytes: 8 << 30,
            gpus: 0,
            disk_bytes: 100 << 30,
        },
        runtimes: vec![RuntimeKind::Process],
        hostname: "host".into(),
        agent_version: "0.1.0".into(),
        ..Facts::default()
    }
}

pub(crate) fn node_record(name: &str, exclusive: bool) -> NodeRecord {
    NodeRecord {
        name: NodeName::new(name).unwrap(),
        key_hash: format!("key-of-{name}"),
        facts: facts(exclusive),
        labels: BTreeMap::new(),
        declared: BTreeMap::new(),
        cordoned: false,
        drain: None,
        lost: false,
        joined: Timestamp(0),
    }
}

pub(crate) fn status(id: &str, phase: Phase) -> InstanceStatus {
    InstanceStatus {
        id: id.parse().unwrap(),
        phase,
        start: 1,
        restarts: 0,
        address: Some("127.0.0.1:21000".parse().unwrap()),
        reason: None,
        last_lines: Vec::new(),
        pid: Some(1),
        since: Timestamp(0),
        digest: None,
        output: None,
        gpus: Vec::new(),
    }
}

pub(crate) fn instance(id: &str, node: &str, phase: Phase) -> InstanceRecord {
    let id: InstanceId = id.parse().unwrap();
    InstanceRecord {
        place: NodeName::new(node).unwrap().into(),
        pod: None,
        reserved: None,
        gpus: Vec::new(),
        stage: Stage::Running,
        status: status(&id.to_string(), phase),
        created: Timestamp(0),
        id,
    }
}

/// An empty world.
pub(crate) fn world() -> World {
    World {
        records: Records::empty(),
        live: Live::default(),
        settings: berth_plan::Settings::default(),
        ca_key_hash: "hash".into(),
        pod_key: [7; 32],
        clusters: BTreeMap::new(),
        transport: Default::default(),
        started: Monotonic(1_000),
        now: Monotonic(1_000),
        wall: Timestamp(1_700_000_000_000),
        epoch: 1,
        term: 1,
        revision: 1,
        restored: false,
        settling: false,
        planner: berth_plan::Planner::default(),
        waiting: Vec::new(),
        store_problem: None,
        disk: crate::disk::Found::default(),
        table: Arc::new(Table::default()),
        fresh: Vec::new(),
    }
}

/// One service `web` of model `dga` with one healthy instance on node `n1`, which is connected.
pub(crate) fn world_with_service() -> World {
    let mut world = world();
    let model = model_version("dga", "1.0.0", 1);
    world.records.models.put((model.name.clone(), 1), model);
    let node = node_record("n1", true);
    world.records.nodes.put(node.name.clone(), node);
    connect(&mut world, "n1");
    let deploy = berth_model::api::Deploy {
        model: "dga".into(),
        service: Some("web".parse().unwrap()),
        ..berth_model::api::Deploy::default()
    };
    super::commands::services::deploy(&mut world, &deploy).unwrap();
    let record = instance("web.1.0.1", "n1", Phase::Healthy);
    world.records.instances.put(record.id.clone(), record);
    world
}

/// Gives a node a session that was heard just now.
pub(crate) fn connect(world: &mut World, node: &str) -> mpsc::Receiver<super::ToAgent> {
    let now = world.now;
    let agent = super::AgentName::from(NodeName::new(node).unwrap());
    world.live.pending.agents.insert(agent.clone());
    world.live.pending.strangers.insert(agent.clone());
    let live = world.live.agents.entry(agent).or_default();
    live.last_heard = Some(now);
    let (outbox, words) = mpsc::channel(4);
    live.session = Some(super::live::AgentSession {
        connection: 1,
        outbox,
        current: false,
        told_callers: false,
        acknowledged: None,
        refused: None,
        refused_at: None,
    });
    words
}

/// Configures a cluster.
pub(crate) fn add_cluster(world: &mut World, name: &str) {
    let name: berth_model::id::ClusterName = name.parse().unwrap();
    let info = super::ClusterInfo {
        name: name.clone(),
        labels: BTreeMap::new(),
        namespace: "berth".into(),
    };
    let cluster = super::clusters::Cluster::new(info, world.wall);
    world.clusters.insert(name, cluster);
}
