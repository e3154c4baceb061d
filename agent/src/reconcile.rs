//! The task that owns all that is so of this node's instances: hear, plan, act, publish.

mod act;
mod adopt;
mod equip;
mod hear;
mod launch;
mod ports;
mod progress;
mod task;
mod watching;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use berth_agent_plan::{Check, Local, Run, Settings, Status, plan};
use berth_model::digest::PackageDigest;
use berth_model::id::InstanceId;
use berth_model::instance::{InstanceSpec, Reason};
use berth_model::route::Order;
use berth_model::time::Monotonic;
use berth_relay::folder::Target;
use berth_shim::spec::LogSpec;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::clock;
use crate::data::DataDir;
use crate::disk::Disk;
use crate::ledger::{Ledger, Refused};
use crate::logs;
use crate::packages::{PackageNews, Packages};
use crate::ports::PortRange;
use crate::relay::Relay;
use crate::rpc::board::Board;
use crate::runtime::{EndState, Handle, PrepareError, Runtimes};
use crate::tasks::{TaskNews, Tasks};

pub use progress::{Progress, ProgressSender};

/// What the reconciler is told.
#[derive(Debug)]
pub enum Event {
    /// The coordinator sent a desired set.
    Desired {
        /// Its order.
        order: Order,
        /// Its content.
        specs: Vec<InstanceSpec>,
        /// Told once it is on disk, or why it is not taken.
        reply: oneshot::Sender<Result<(), Refused>>,
    },
    /// A package made progress.
    Package {
        /// Which.
        digest: PackageDigest,
        /// How.
        news: PackageNews,
    },
    /// What an instance needs besides its package is prepared, or is not.
    Equipped {
        /// Which instance.
        id: InstanceId,
        /// The image of its container.
        result: Result<String, PrepareError>,
    },
    /// A launch is over.
    Launched {
        /// Of which instance.
        id: InstanceId,
        /// Number of the start.
        start: u32,
        /// The start with its module's pid, or why there is none.
        result: Result<(Handle, Option<u32>), Reason>,
    },
    /// A start ended.
    Ended {
        /// Of which instance.
        id: InstanceId,
        /// Number of the start.
        start: u32,
        /// How.
        end: EndState,
    },
    /// A health check said something.
    Check {
        /// Of which instance.
        id: InstanceId,
        /// Of which start.
        start: u32,
        /// What.
        check: Check,
    },
    /// A task's input or output made progress.
    Task {
        /// Which task.
        id: InstanceId,
        /// How.
        news: TaskNews,
    },
    /// The logs of all starts of an instance are on the coordinator's disk.
    LogsShipped {
        /// Which instance.
        id: InstanceId,
    },
    /// The coordinator refused a session.
    Refused {
        /// Why, for programs.
        code: String,
        /// Why, for people.
        message: String,
    },
    /// Does the reconciler turn?
    Alive {
        /// Told when it is heard, which is after all that came before was planned for.
        reply: oneshot::Sender<()>,
    },
    /// How instances are reached may have changed.
    Relay,
    /// Stop everything in order: the agent ends with its instances.
    End,
}

/// Where instances listen inside a Pod, whose network is its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    /// What they are told as HOST.
    pub host: IpAddr,
    /// TensorFlow Serving's port for gRPC.
    pub grpc: u16,
    /// The environment that the image brings; what Berth and the manifest say wins over it.
    pub env: BTreeMap<String, String>,
}

/// What a reconciler works with.
pub struct Parts {
    /// Numbers to plan by.
    pub settings: Settings,
    /// The data folder.
    pub data: DataDir,
    /// The ledger in it.
    pub ledger: Ledger,
    /// What starts instances.
    pub runtimes: Arc<Runtimes>,
    /// Packages on this node.
    pub packages: Packages,
    /// Inputs and outputs of tasks.
    pub tasks: Tasks,
    /// Berth's batch driver, if one is configured.
    pub driver: Option<PathBuf>,
    /// The shipper of logs.
    pub shipper: mpsc::UnboundedSender<logs::Command>,
    /// Where it is told how far the only instance is, of an agent that ends with it.
    pub progress: Option<ProgressSender>,
    /// Where instances listen, in a Pod.
    pub inside: Option<Inside>,
    /// The node's relay.
    pub relay: Arc<Relay>,
    /// Where statuses are published.
    pub board: Arc<Board>,
    /// Where events come from; and a way to send some.
    pub events: (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    /// Ports that may be given out.
    pub ports: PortRange,
    /// Limits of a start's log on disk.
    pub log: LogSpec,
    /// The disk of the data folder.
    pub(crate) disk: Arc<Disk>,
    /// TensorFlow Serving, if the configuration names it.
    pub model_server: Option<PathBuf>,
    /// This boot.
    pub boot_id: String,
}

/// One start that runs, and those who watch it.
struct Running {
    handle: Handle,
    ended: AbortHandle,
    health: Option<AbortHandle>,
    metrics: Option<AbortHandle>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.ended.abort();
        for task in [&self.health, &self.metrics].into_iter().flatten() {
            task.abort();
        }
    }
}

/// The task's state.
pub struct Reconciler {
    parts: Parts,
    local: BTreeMap<InstanceId, Local>,
    running: BTreeMap<InstanceId, Running>,
    /// Images of those that run in containers, as they were prepared.
    images: BTreeMap<InstanceId, String>,
    /// The port given out last.
    last_port: Option<u16>,
}

impl Reconciler {
    /// Finds out what became of everything that the last agent left, and publishes it; starts nothing yet.
    pub async fn adopt(parts: Parts) -> Self {
        let mut reconciler = Self {
            parts,
            local: BTreeMap::new(),
            running: BTreeMap::new(),
            images: BTreeMap::new(),
            last_port: None,
        };
        reconciler.tell_isolation();
        reconciler.adopt_all().await;
        if let Some(order) = reconciler.parts.ledger.order() {
            reconciler.parts.board.accepted(order);
            reconciler.keep_packages();
        }
        let plan = plan(
            reconciler.parts.ledger.desired(),
            &reconciler.local,
            clock::now(),
            &reconciler.parts.settings,
        );
        reconciler.publish(plan.statuses).await;
        reconciler
    }

    /// Runs until the agent ends.
    pub async fn run(mut self) {
        loop {
            let wake = self.step().await;
            tokio::select! {
                event = self.parts.events.1.recv() => match event {
                    Some(event) => self.hear(event).await,
                    None => return,
                },
                () = until(wake) => {}
            }
            // What has come meanwhile is planned for in one go.
            while let Ok(event) = self.parts.events.1.try_recv() {
                self.hear(event).await;
            }
        }
    }

    /// Plans and acts until there is nothing to do; tells when to look again.
    async fn step(&mut self) -> Option<Monotonic> {
        // Each round changes what it acted on, so a few are enough; more would be a mistake in the
        // planner, which must not stop the agent from hearing.
        for _ in 0..16 {
            let now = clock::now();
            let plan = plan(
                self.parts.ledger.desired(),
                &self.local,
                now,
                &self.parts.settings,
            );
            self.publish(plan.statuses.clone()).await;
            if plan.actions.is_empty() {
                self.drain();
                self.tell(&plan.statuses);
                return plan.wake;
            }
            for action in plan.actions {
                self.act(action).await;
            }
        }
        tracing::error!("planning does not come to rest");
        Some(clock::now().after(std::time::Duration::from_secs(1)))
    }

    /// What instances are told as HOST.
    fn host(&self) -> IpAddr {
        match &self.parts.inside {
            Some(inside) => inside.host,
            None => {
                let relayed = self.parts.relay.host();
                relayed.unwrap_or(self.parts.settings.address)
            }
        }
    }

    /// Has the relay pass on to what runs, and then reports everything; an address only where gateways reach it.
    async fn publish(&self, mut statuses: BTreeMap<InstanceId, Status>) {
        let relay = &self.parts.relay;
        relay.instances(self.relayed()).await;
        for (id, status) in &mut statuses {
            status.address = status.address.filter(|at| relay.reaches(id, *at));
        }
        self.parts.board.publish(statuses, clock::wall());
    }

    /// What listens on loopback for the relay.
    fn relayed(&self) -> BTreeMap<InstanceId, Target> {
        let running = self.local.iter().filter(|(_, local)| {
            // A task is reached by nobody.
            !matches!(local.run, Run::Down { .. }) && local.task.is_none()
        });
        let listens = running.filter_map(|(id, local)| {
            let host = local.host.filter(IpAddr::is_loopback)?;
            let at = SocketAddr::new(host, local.port?);
            Some((id.clone(), Target::Tcp(at)))
        });
        listens.collect()
    }

    fn running_start(&self, id: &InstanceId, start: u32) -> bool {
        self.running
            .get(id)
            .is_some_and(|running| running.handle.start == start)
    }

    fn publish_running(&self) {
        let handles = self
            .running
            .iter()
            .map(|(id, running)| (id.clone(), running.handle.clone()));
        self.parts.board.running(handles.collect());
    }

    fn ship(&self, command: logs::Command) {
        // The shipper ends only with the agent.
        let _ = self.parts.shipper.send(command);
    }
}

async fn until(at: Option<Monotonic>) {
    match at {
        Some(at) => clock::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
