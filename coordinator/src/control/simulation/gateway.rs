//! A simulated gateway: follows the tables, acknowledges them a little later, and sends a request to
//! every instance it knows all the time. A request fails if its instance does not serve.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_model::gateway::GatewayReport;
use berth_model::id::{GatewayName, InstanceId, ServiceName};
use berth_model::instance::Phase;
use berth_model::route::{Order, Table};
use tokio::sync::watch;

use super::agent::Machine;
use crate::control::{Command, GatewayOpened, Handle};

#[derive(Default)]
pub(crate) struct Traffic {
    pub(crate) table: Arc<Table>,
    pub(crate) failed: Vec<String>,
    pub(crate) sent: u64,
    pub(crate) by_instance: BTreeMap<InstanceId, u64>,
    /// What it says of requests that last; such an instance must go on running.
    pub(crate) in_flight: Vec<(InstanceId, u64)>,
    /// Services that are expected to have an instance at any time.
    pub(crate) steady: Vec<ServiceName>,
}

#[derive(Clone)]
pub(crate) struct SimGateway {
    pub(crate) name: GatewayName,
    pub(crate) network: watch::Receiver<Option<Handle>>,
    pub(crate) machines: Vec<Arc<Mutex<Machine>>>,
    pub(crate) traffic: Arc<Mutex<Traffic>>,
}

impl SimGateway {
    pub(crate) async fn run(mut self) {
        let load = tokio::spawn(self.clone().load());
        loop {
            let handle = self.network.borrow_and_update().clone();
            let mut network = self.network.clone();
            let Some(handle) = handle else {
                if network.changed().await.is_err() {
                    break;
                }
                self.network = network;
                continue;
            };
            tokio::select! {
                () = self.follow(&handle) => tokio::time::sleep(Duration::from_millis(20)).await,
                gone = network.changed() => if gone.is_err() { break },
            }
        }
        load.abort();
    }

    async fn follow(&self, handle: &Handle) {
        let opened = GatewayOpened {
            name: self.name.clone(),
            url: "http://gateway".into(),
            incarnation: String::new(),
            beside: Vec::new(),
            draining: false,
        };
        let opened = handle.ask(|reply| Command::GatewayOpened(Box::new(opened), reply));
        let Ok(following) = opened.await else {
            return;
        };
        let (connection, mut tables) = (following.connection, following.tables);
        loop {
            let table = Arc::clone(&tables.borrow_and_update());
            // A real gateway takes a moment to take a table over.
            tokio::time::sleep(Duration::from_millis(7)).await;
            {
                let mut traffic = self.traffic.lock().unwrap();
                if table.version >= traffic.table.version {
                    traffic.table = Arc::clone(&table);
                } else if table.version != Order::default() {
                    // None at all is what a restored coordinator begins with.
                    traffic.failed.push("an older table came".into());
                }
            }
            let report = {
                let traffic = self.traffic.lock().unwrap();
                GatewayReport {
                    acknowledged: traffic.table.version,
                    in_flight: traffic.in_flight.clone(),
                    draining: false,
                }
            };
            handle
                .tell(Command::GatewayReported(connection, report))
                .await;
            tokio::select! {
                changed = tables.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
    }

    async fn load(self) {
        loop {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let mut traffic = self.traffic.lock().unwrap();
            let table = Arc::clone(&traffic.table);
            for service in traffic.steady.clone() {
                if table
                    .services
                    .get(&service)
                    .is_none_or(|s| s.revisions.is_empty())
                {
                    traffic.failed.push(format!("{service} has no instance"));
                }
            }
            let routes = table.services.values().flat_map(|s| s.revisions.values());
            for id in routes.flat_map(|r| r.instances.keys()) {
                traffic.sent += 1;
                *traffic.by_instance.entry(id.clone()).or_default() += 1;
                let serves = self.machines.iter().any(|m| {
                    let machine = m.lock().unwrap();
                    machine
                        .instances
                        .get(id)
                        .is_some_and(|s| s.phase == Phase::Healthy)
                });
                if !serves {
                    traffic.failed.push(format!("{id} does not serve"));
                }
            }
        }
    }
}
