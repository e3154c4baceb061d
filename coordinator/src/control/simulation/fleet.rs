//! A whole fleet in one process: the real control actor, simulated nodes and a simulated gateway.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_model::api::{CreateToken, Deploy, ServiceState, ServiceView};
use berth_model::id::{InstanceId, ServiceName};
use berth_model::instance::Phase;
use berth_model::problem::Problem;
use berth_model::service::ModelVersion;
use berth_model::token::JoinToken;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::agent::{Machine, SimAgent};
use super::gateway::{SimGateway, Traffic};
use crate::control::testing::{Disk, Fault, MemStore, TestClock, facts, model_version};
use crate::control::{Command, Config, ControlError, Handle, Join, start};

pub(crate) struct Fleet {
    pub(crate) disk: Arc<Mutex<Disk>>,
    pub(crate) store: MemStore,
    pub(crate) clock: TestClock,
    pub(crate) handle: Handle,
    actor: JoinHandle<Result<(), ControlError>>,
    /// What every peer sees of the coordinator.
    network: watch::Sender<Option<Handle>>,
    pub(crate) machines: Vec<Arc<Mutex<Machine>>>,
    cables: Vec<watch::Sender<Option<Handle>>>,
    pub(crate) traffic: Arc<Mutex<Traffic>>,
    tasks: Vec<JoinHandle<()>>,
    exclusive: bool,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.actor.abort();
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

pub(crate) async fn begin(
    store: &MemStore,
    clock: &TestClock,
) -> (Handle, JoinHandle<Result<(), ControlError>>) {
    let config = Config {
        clock: Arc::new(clock.clone()),
        ..Config::new(Arc::new(store.clone()), "ca-hash")
    };
    start(config).await.unwrap()
}

impl Fleet {
    /// A coordinator, `nodes` connected nodes and a gateway, with `dga` 1.0.0 and 2.0.0 registered.
    pub(crate) async fn new(nodes: usize, exclusive: bool) -> Self {
        let disk: Arc<Mutex<Disk>> = Arc::default();
        disk.lock().unwrap().epoch = 1;
        let store = MemStore::on(&disk);
        let clock = TestClock(tokio::time::Instant::now());
        let (handle, actor) = begin(&store, &clock).await;
        let (network, _) = watch::channel(Some(handle.clone()));
        let mut fleet = Self {
            disk,
            store,
            clock,
            handle,
            actor,
            network,
            machines: Vec::new(),
            cables: Vec::new(),
            traffic: Arc::default(),
            tasks: Vec::new(),
            exclusive,
        };
        for version in ["1.0.0", "2.0.0"] {
            fleet
                .register(model_version("dga", version, 0))
                .await
                .unwrap();
        }
        for n in 0..nodes {
            fleet.add_node(&format!("n{n}")).await;
        }
        fleet.add_gateway();
        fleet
    }

    pub(crate) async fn register(&self, version: ModelVersion) -> Result<ModelVersion, Problem> {
        let command = |reply| Command::RegisterModel(Box::new(version), reply);
        self.handle.ask(command).await
    }

    pub(crate) async fn add_node(&mut self, name: &str) {
        let token = self
            .handle
            .ask(|reply| Command::CreateToken(CreateToken::default(), reply))
            .await
            .unwrap();
        let token: JoinToken = token.token.parse().unwrap();
        let join = Join {
            token_id: token.id,
            token_secret: token.secret,
            key_hash: format!("key-of-{name}"),
            name: name.into(),
            facts: facts(self.exclusive),
            pod: None,
        };
        let joined = self
            .handle
            .ask(|reply| Command::Join(Box::new(join), reply))
            .await
            .unwrap();
        let node = joined.agent.node().unwrap().clone();
        let machine: Arc<Mutex<Machine>> = Arc::default();
        let (cable, _) = watch::channel(self.network.borrow().clone());
        let agent = SimAgent {
            name: node,
            machine: Arc::clone(&machine),
            exclusive: self.exclusive,
            network: cable.subscribe(),
            incarnation: format!("{name}-1"),
        };
        self.tasks.push(tokio::spawn(agent.run()));
        self.machines.push(machine);
        self.cables.push(cable);
    }

    fn add_gateway(&mut self) {
        let gateway = SimGateway {
            name: "g1".parse().unwrap(),
            network: self.network.subscribe(),
            machines: self.machines.clone(),
            traffic: Arc::clone(&self.traffic),
        };
        self.tasks.push(tokio::spawn(gateway.run()));
    }

    /// Ends the coordinator as `kill -9` does and starts another on the same disk.
    pub(crate) async fn restart(&mut self, down: Duration) {
        self.actor.abort();
        self.plug(None);
        tokio::time::sleep(down).await;
        self.store = MemStore::on(&self.disk);
        let (handle, actor) = begin(&self.store, &self.clock).await;
        self.actor = actor;
        self.handle = handle.clone();
        self.plug(Some(&handle));
    }

    fn plug(&self, handle: Option<&Handle>) {
        self.network.send_replace(handle.cloned());
        for cable in &self.cables {
            cable.send_replace(handle.cloned());
        }
    }

    /// Takes a node's network away or gives it back.
    pub(crate) fn cable(&self, node: usize, plugged: bool) {
        let handle = plugged.then(|| self.handle.clone());
        self.cables[node].send_replace(handle);
    }

    pub(crate) fn fault(&self, fault: Fault) {
        *self.store.fault.lock().unwrap() = fault;
    }

    pub(crate) async fn deploy(&self, model: &str, replicas: u32) -> Result<ServiceView, Problem> {
        let deploy = Deploy {
            model: model.into(),
            service: Some(web()),
            replicas: Some(replicas),
            ..Deploy::default()
        };
        self.handle
            .ask(|reply| Command::Deploy(Box::new(deploy), reply))
            .await
    }

    pub(crate) async fn scale(&self, replicas: u32) -> Result<ServiceView, Problem> {
        self.handle
            .ask(|reply| Command::Scale(web(), replicas, reply))
            .await
    }

    pub(crate) async fn service(&self) -> Result<ServiceView, Problem> {
        self.handle
            .ask(|reply| Command::Service(web(), reply))
            .await
    }

    /// Waits until the service is ready, and answers with it.
    pub(crate) async fn ready(&self) -> ServiceView {
        self.until("ready", |view| {
            view.as_ref().is_ok_and(|v| v.state == ServiceState::Ready)
        })
        .await
        .unwrap()
    }

    pub(crate) async fn until(
        &self,
        what: &str,
        holds: impl Fn(&Result<ServiceView, Problem>) -> bool,
    ) -> Result<ServiceView, Problem> {
        let mut last = self.service().await;
        for _ in 0..4_000 {
            if holds(&last) {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            last = self.service().await;
        }
        panic!("never {what}: {last:#?}\n{:#?}", self.machines);
    }

    /// What runs on all machines.
    pub(crate) fn running(&self) -> Vec<InstanceId> {
        let mut out: Vec<InstanceId> = Vec::new();
        for machine in &self.machines {
            let machine = machine.lock().unwrap();
            let healthy = machine.instances.values();
            let healthy = healthy.filter(|s| s.phase == Phase::Healthy);
            out.extend(healthy.map(|s| s.id.clone()));
        }
        out.sort();
        out
    }

    pub(crate) fn store_revision(&self) -> u64 {
        self.disk.lock().unwrap().revision()
    }

    /// From now on the gateway must always have an instance of the service, or no longer.
    pub(crate) async fn steady(&self, on: bool) {
        let serves = || {
            let table = Arc::clone(&self.traffic.lock().unwrap().table);
            let route = table.services.get(&web()).cloned();
            route.is_some_and(|r| !r.revisions.is_empty())
        };
        while on && !serves() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.traffic.lock().unwrap().steady = if on { vec![web()] } else { Vec::new() };
    }

    /// No request failed and no machine was asked for anything it must not do.
    pub(crate) fn check(&self) {
        let traffic = self.traffic.lock().unwrap();
        let shown: Vec<&String> = traffic.failed.iter().take(5).collect();
        assert!(
            shown.is_empty(),
            "{} of {} requests failed: {shown:?}",
            traffic.failed.len(),
            traffic.sent
        );
        for machine in &self.machines {
            let machine = machine.lock().unwrap();
            assert!(machine.violations.is_empty(), "{:?}", machine.violations);
        }
    }
}

pub(crate) fn web() -> ServiceName {
    "web".parse().unwrap()
}
