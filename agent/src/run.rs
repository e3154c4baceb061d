//! An agent at work: everything wired together.

use std::sync::Arc;

use berth_agent_plan::Settings;
use berth_model::node::{Facts, RuntimeKind};
use berth_shim::spec::LogSpec;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::availability;
use crate::clock;
use crate::config::Config;
use crate::data::{DataDir, DataError};
use crate::disk::Disk;
use crate::facts::{self, GpuWatch};
use crate::files::FileError;
use crate::identity::{Identity, IdentityError, Renewer};
use crate::ledger::Ledger;
use crate::limit::Limit;
use crate::logs::Shipper;
use crate::packages::{Packages, Shared};
use crate::reconcile::{Event, Inside, Parts, ProgressSender, Reconciler};
use crate::relay::{Place, Relay};
use crate::rpc::board::Board;
use crate::rpc::connect::{ConnectError, normalize};
use crate::rpc::machine::Machine;
use crate::rpc::session::Session;
use crate::runtime::{RuntimeError, Runtimes};
use crate::supervised;
use crate::tasks::Tasks;

/// Why an agent cannot work, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its data folder cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// It has no identity that can be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The configured endpoint is none.
    #[error(transparent)]
    Endpoint(#[from] ConnectError),
    /// The runtime cannot be used.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A resource of the system cannot be had.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
    /// One of its tasks ended, which none does but by a mistake in this program.
    #[error("the {0} task ended")]
    Task(&'static str),
}

/// Limits of a start's log on disk.
fn log_spec(config: &Config) -> LogSpec {
    LogSpec {
        segment_bytes: config.log_segment.0,
        budget_bytes: config.log_budget.0,
    }
}

/// Where the node's relay is.
fn relay_place(config: &Config, data: &DataDir, identity: &Identity, endpoint: &str) -> Place {
    Place {
        node: identity.name.clone(),
        folder: config.relay_dir.clone(),
        figures: config.relay_metrics.clone(),
        listen: config.relay_listen,
        address: config.address,
        endpoint: endpoint.to_owned(),
        told: data.transport(),
    }
}

/// What one agent does otherwise than another.
pub(crate) struct Role {
    /// What it says of its machine.
    pub(crate) facts: Facts,
    /// Numbers to plan by.
    pub(crate) settings: Settings,
    /// What it is to run, as far as it is known.
    pub(crate) ledger: Ledger,
    /// What is reported to the coordinator.
    pub(crate) board: Arc<Board>,
    /// Where instances listen, in a Pod.
    pub(crate) inside: Option<Inside>,
    /// Where it is told how far the only instance is, of an agent that ends with it.
    pub(crate) progress: Option<ProgressSender>,
}

/// Runs until `stop` resolves; then all tasks end at once, and the instances go on.
pub async fn run(
    config: &Config,
    data: &DataDir,
    runtimes: Arc<Runtimes>,
    stop: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let _lock = data.lock()?;
    let facts = facts::gather(config, data.root());
    let role = Role {
        settings: Settings {
            address: config.address,
            exclusive: facts.exclusive,
            ..Settings::default()
        },
        facts,
        ledger: Ledger::open(data.ledger())?,
        board: Arc::default(),
        inside: None,
        progress: None,
    };
    let agent = Agent::set_up(config, data, runtimes, role).await?;
    tokio::select! {
        () = stop => Ok(()),
        error = agent.work() => Err(error),
    }
}

/// Keeps true what is said of the machine, until the set is dropped.
async fn watch_machine(
    config: &Config,
    runtimes: &Runtimes,
    role: &Role,
    data: &DataDir,
) -> (JoinSet<()>, Arc<Machine>) {
    let machine = Arc::new(Machine::new(data.root()));
    let mut watching = availability::watch(runtimes, &role.board).await;
    // In a Pod nothing is installed later.
    if role.inside.is_none() {
        let model_server = config.model_server.clone();
        watching.spawn(availability::installed(model_server, role.board.clone()));
        let gpus = GpuWatch::begin(role.board.clone(), machine.clone()).await;
        watching.spawn(gpus.run());
    }
    (watching, machine)
}

/// What comes from the coordinator and lies on the disk.
struct Stores {
    packages: Packages,
    tasks: Tasks,
    disk: Arc<Disk>,
}

impl Stores {
    fn open(
        config: &Config,
        data: &DataDir,
        ledger: &Ledger,
        runtimes: &Runtimes,
        machine: &Arc<Machine>,
        (connected, events): (&watch::Receiver<Option<Channel>>, &mpsc::Sender<Event>),
    ) -> Self {
        let desired = ledger.desired().into_iter().flatten();
        let archives = desired.map(|(_, spec)| spec.blob).collect();
        let disk = Arc::new(Disk::new(data.root(), config.disk_low));
        let limit = config.download_limit.map(|rate| Arc::new(Limit::new(rate)));
        let shared = Shared {
            channel: connected.clone(),
            events: events.clone(),
            room: disk.clone(),
            machine: machine.clone(),
            limit: limit.clone(),
            budget: config.package_budget.0,
            runtime: runtimes.get(RuntimeKind::Process).ok().cloned(),
        };
        Self {
            packages: Packages::open(data, &archives, shared),
            tasks: Tasks::new(
                data.clone(),
                config.max_output.0,
                connected.clone(),
                events.clone(),
                limit,
            ),
            disk,
        }
    }

    /// Looks after the room on the disk, for ever.
    fn watch(&self, board: Arc<Board>) -> impl Future<Output = ()> + Send + 'static {
        crate::disk::watch(self.disk.clone(), self.packages.cache(), board)
    }
}

/// An agent, its tasks ready to run. Its caller holds the data folder's lock.
pub(crate) struct Agent {
    reconciler: Reconciler,
    logs: Shipper,
    session: Session,
    renewer: Renewer,
    relay: Arc<Relay>,
    /// To its reconciler.
    pub(crate) events: mpsc::Sender<Event>,
    /// The connection to the coordinator, while a session is open.
    pub(crate) connected: watch::Receiver<Option<Channel>>,
    _watching: JoinSet<()>,
}

impl Agent {
    /// Finds out what became of what the last agent left; starts nothing yet.
    pub(crate) async fn set_up(
        config: &Config,
        data: &DataDir,
        runtimes: Arc<Runtimes>,
        role: Role,
    ) -> Result<Self, RunError> {
        let identity = Identity::load(data)?;
        let endpoint = match &config.endpoint {
            Some(endpoint) => normalize(endpoint)?,
            None => identity.endpoint.clone(),
        };
        let boot_id = role.facts.boot_id.clone();
        role.board.facts(|known| known.clone_from(&role.facts));
        let (mut watching, machine) = watch_machine(config, &runtimes, &role, data).await;
        let (events, inbox) = mpsc::channel(1024);
        let (channel, connected) = watch::channel(None);
        let (shipper, commands) = mpsc::unbounded_channel();
        let system = |what| move |source| RunError::System { what, source };
        let logs = Shipper::new(commands, connected.clone(), events.clone())
            .map_err(system("watch log folders"))?;
        tracing::info!(node = %identity.name, data = ?data.root(), "berth-agent");
        let wires = (&connected, &events);
        let stores = Stores::open(config, data, &role.ledger, &runtimes, &machine, wires);
        // A Pod's disk is Kubernetes' business, and there is no relay.
        let on_node = role.inside.is_none();
        let watch_disk = on_node.then(|| stores.watch(role.board.clone()));
        let place = on_node.then(|| relay_place(config, data, &identity, &endpoint));
        let relay = Relay::open(place, role.board.clone(), events.clone()).await;
        let parts = Parts {
            relay: relay.clone(),
            settings: role.settings,
            data: data.clone(),
            ledger: role.ledger,
            runtimes: runtimes.clone(),
            packages: stores.packages,
            tasks: stores.tasks,
            driver: config.driver.clone(),
            shipper,
            progress: role.progress,
            inside: role.inside,
            board: role.board.clone(),
            events: (events.clone(), inbox),
            ports: config.port_range,
            log: log_spec(config),
            disk: stores.disk,
            model_server: config.model_server.clone(),
            boot_id: boot_id.clone(),
        };
        // Adoption comes first: the hello must tell what runs.
        let reconciler = Reconciler::adopt(parts).await;
        // Then what is used is known, and the rest may be deleted if there is no room.
        if let Some(watch_disk) = watch_disk {
            watching.spawn(watch_disk);
        }
        let expired = Arc::new(Notify::new());
        let (current, identity) = watch::channel(Arc::new(identity));
        let renewer = Renewer::new(
            data.clone(),
            endpoint.clone(),
            boot_id.clone(),
            current,
            expired.clone(),
        );
        let session = Session {
            endpoint,
            identity,
            expired,
            boot_id,
            incarnation: format!("{:032x}", rand::random::<u128>()),
            board: role.board,
            events: events.clone(),
            channel,
            relay: relay.clone(),
            runtimes,
            machine,
        };
        Ok(Self {
            reconciler,
            logs,
            session,
            renewer,
            relay,
            events,
            connected,
            _watching: watching,
        })
    }

    /// Works for ever; tells which task ended, if one did.
    pub(crate) async fn work(self) -> RunError {
        let started = clock::now();
        let (connected, machine) = (self.connected.clone(), self.session.machine.clone());
        let systemd = supervised::tell(
            self.session.identity.borrow().name.to_string(),
            self.session.endpoint.clone(),
            self.events,
            self.connected,
        );
        let ended = tokio::select! {
            never = systemd => match never {},
            _ = tokio::spawn(self.reconciler.run()) => "reconciler",
            _ = tokio::spawn(self.logs.run()) => "log shipper",
            _ = tokio::spawn(self.session.run()) => "session",
            _ = tokio::spawn(self.renewer.run()) => "renewal",
            _ = tokio::spawn(self.relay.work(connected, machine)) => "relay",
        };
        tracing::error!(task = ended, after = ?clock::now().since(started), "a task ended");
        RunError::Task(ended)
    }
}
