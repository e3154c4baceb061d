//! How every edge (REST, agents' sessions, gateways) talks to the control actor.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::agent::AgentName;
use super::clusters::{Orders, Reach, WorkReport};
use crate::disk;
use berth_model::api::{
    ClusterView, CreateJob, CreateToken, Deploy, DrainNode, Fleet, FleetPlan, FleetRequest,
    GatewayView, JobView, LabelNode, ModelView, NodeView, PoolView, PutPool, ServiceView,
    StatusView, TokenView,
};
use berth_model::digest::{BlobDigest, PackageDigest};
use berth_model::event::Event;
use berth_model::gateway::GatewayReport;
use berth_model::id::{
    ClusterName, FleetName, GatewayName, InstanceId, JobName, ModelName, NodeName, PoolName,
    ServiceName,
};
use berth_model::instance::{InstanceSpec, InstanceStatus};
use berth_model::job::{ShardInput, TaskOutput};
use berth_model::node::{Facts, NodeStatistics};
use berth_model::problem::Problem;
use berth_model::relay::Caller;
use berth_model::resources::Resources;
use berth_model::route::{Order, Table};
use berth_model::service::ModelVersion;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// Answer of a command: sent only once what it acknowledges is on disk.
pub type Reply<T> = oneshot::Sender<Result<T, Problem>>;

/// Identifies one connection of an agent or gateway within this process.
pub type ConnectionId = u64;

/// Everything that can be asked of the control actor.
pub enum Command {
    /// A verified package becomes a model version (`serial` and `pushed` are set by control).
    /// Same version and digest again: the one that is there. Same version, other digest: conflict.
    RegisterModel(Box<ModelVersion>, Reply<ModelVersion>),
    /// Create or change a service.
    Deploy(Box<Deploy>, Reply<ServiceView>),
    /// Change a service's number of instances.
    Scale(ServiceName, u32, Reply<ServiceView>),
    /// Delete a service.
    Delete(ServiceName, Reply<ServiceView>),
    /// About fleets as a whole, and pools.
    Declared(Declared),
    /// Create a job; its input is cut already.
    CreateJob(Box<NewJob>, Reply<JobView>),
    /// Delete a job: its tasks stop, then what it left goes, then the job.
    DeleteJob(JobName, Reply<JobView>),
    /// All jobs, without their shards.
    Jobs(Reply<Vec<JobView>>),
    /// One job.
    Job(JobName, Reply<JobView>),
    /// An index's committed output.
    JobOutput(JobName, u32, Reply<TaskOutput>),
    /// Whether a job has ended and every line of its tasks is here.
    JobTold(JobName, Reply<bool>),
    /// An agent is about to send a task's output; it is kept from then on. Conflict if it would not be
    /// taken.
    AnnounceOutput(AgentName, InstanceId, BlobDigest, Reply<()>),
    /// What deleted jobs left, to be removed.
    Leavings(Reply<Vec<Leavings>>),
    /// What a deleted job left is removed.
    LeavingsRemoved(JobName, Reply<()>),
    /// Whether a node takes new instances; taking them again ends its drain, too.
    CordonNode(NodeName, bool, Reply<NodeView>),
    /// Empty a node.
    DrainNode(NodeName, DrainNode, Reply<NodeView>),
    /// Change a node's labels.
    LabelNode(NodeName, LabelNode, Reply<NodeView>),
    /// Take a node out of the fleet. Conflict while it is connected and has instances.
    RemoveNode(NodeName, Reply<NodeView>),
    /// Make a join token.
    CreateToken(CreateToken, Reply<TokenView>),
    /// All models.
    Models(Reply<Vec<ModelView>>),
    /// One model.
    Model(ModelName, Reply<ModelView>),
    /// All services.
    Services(Reply<Vec<ServiceView>>),
    /// One service.
    Service(ServiceName, Reply<ServiceView>),
    /// All nodes.
    Nodes(Reply<Vec<NodeView>>),
    /// What every node does, for `/metrics`.
    Machines(Reply<Vec<Machine>>),
    /// One node.
    Node(NodeName, Reply<NodeView>),
    /// All gateways.
    Gateways(Reply<Vec<GatewayView>>),
    /// What is wrong?
    Status(Reply<StatusView>),
    /// Events with a higher number, oldest first, and all later ones through the receiver.
    Events(u64, Reply<(Vec<Event>, broadcast::Receiver<Event>)>),
    /// A machine or a Pod wants to join; checks the token; answers with who it is now.
    Join(Box<Join>, Reply<Joined>),
    /// All clusters.
    Clusters(Reply<Vec<ClusterView>>),
    /// One cluster.
    Cluster(ClusterName, Reply<ClusterView>),
    /// What a cluster shall run, now and from now on.
    ClusterOrders(ClusterName, Reply<watch::Receiver<Arc<Orders>>>),
    /// Whether a cluster can be used.
    ClusterReach(ClusterName, Reach),
    /// What a cluster has seen of its works; answered when it is on disk.
    ClusterReports(ClusterName, Vec<WorkReport>, Reply<()>),
    /// Whose key is this (SHA-256 hex of SubjectPublicKeyInfo)? Not-found if no agent's.
    AgentByKey(String, Reply<AgentName>),
    /// Whose business an instance is; none if it has no record.
    AgentOf(InstanceId, Reply<Option<AgentName>>),
    /// An agent opens its session. Errors become a refusal (`Problem::kind` ends in its code).
    AgentOpened(Box<AgentOpened>, Reply<ConnectionId>),
    /// Status changes of an agent; answered when on disk.
    AgentStatus(
        ConnectionId,
        Vec<InstanceStatus>,
        Vec<InstanceId>,
        Reply<()>,
    ),
    /// An agent's machine is not what it was when the session began; answered when on disk.
    AgentFacts(ConnectionId, Box<Facts>, Reply<()>),
    /// Something was heard of an agent (any message).
    AgentHeard(ConnectionId),
    /// An agent's heartbeat told what its machine does, or which packages it has.
    AgentStatistics(ConnectionId, Box<Statistics>),
    /// An agent acknowledged or refused a desired set.
    AgentAcknowledged(ConnectionId, Order, Option<String>),
    /// Which of these blobs does nothing need?
    UnusedBlobs(Vec<BlobDigest>, Reply<Vec<BlobDigest>>),
    /// How much room there is on the disk has changed.
    Disk(disk::Found),
    /// An agent's session is over.
    AgentClosed(ConnectionId),
    /// A gateway begins to follow.
    GatewayOpened(Box<GatewayOpened>, Reply<Following>),
    /// A gateway shows the key that it will show to relays (SHA-256 hex of SubjectPublicKeyInfo); answered when it
    /// is on disk.
    GatewayKey(ConnectionId, String, Reply<()>),
    /// Send a gateway away: no relay lets it in any more, and it follows no table.
    RevokeGateway(GatewayName, Reply<GatewayView>),
    /// Forget a gateway; it may come again. Conflict while it is connected.
    RemoveGateway(GatewayName, Reply<GatewayView>),
    /// A gateway's report.
    GatewayReported(ConnectionId, GatewayReport),
    /// A gateway's stream is over.
    GatewayClosed(ConnectionId),
    /// A gateway process ends, with no request under way.
    GatewayLeft(ConnectionId),
    /// How large is this blob? Only archives of registered models and inputs of jobs. For FetchBlob.
    BlobWanted(BlobDigest, Reply<u64>),
}

/// What a gateway that follows is given.
pub struct Following {
    /// Its connection.
    pub connection: ConnectionId,
    /// The route table, now and from now on.
    pub tables: watch::Receiver<Arc<Table>>,
    /// Cancelled when it is sent away.
    pub over: CancellationToken,
}

/// What can be asked about fleets as a whole, and pools.
pub enum Declared {
    /// What a fleet would change.
    Plan(Box<FleetRequest>, Reply<FleetPlan>),
    /// Carry a fleet out; the jobs that it creates are cut already. Answers with what was changed.
    Apply(Box<FleetRequest>, Vec<NewJob>, Reply<FleetPlan>),
    /// What there is as a fleet: of the named one and what was made by hand.
    Export(Option<FleetName>, Reply<Fleet>),
    /// Make a pool, or change what it chooses by.
    PutPool(PoolName, PutPool, Reply<PoolView>),
    /// Take a pool away. Conflict while something is placed in it.
    DeletePool(PoolName, Reply<PoolView>),
    /// All pools.
    Pools(Reply<Vec<PoolView>>),
    /// One pool.
    Pool(PoolName, Reply<PoolView>),
}

/// A job to create.
pub struct NewJob {
    /// As it was asked for.
    pub wanted: CreateJob,
    /// Its input, cut.
    pub shards: Vec<ShardInput>,
    /// Why there are fewer shards than asked for.
    pub note: Option<String>,
}

/// What a deleted job left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leavings {
    /// Which; its logs go.
    pub job: JobName,
    /// Blobs that nothing else needs.
    pub blobs: Vec<BlobDigest>,
}

/// A machine that wants to join.
pub struct Join {
    /// Token's public part.
    pub token_id: String,
    /// Token's secret part.
    pub token_secret: String,
    /// SHA-256 hex of the CSR's public key.
    pub key_hash: String,
    /// Wanted name; the host name's first label if empty.
    pub name: String,
    /// Its facts.
    pub facts: Facts,
    /// Set by what runs in a Pod.
    pub pod: Option<PodJoin>,
}

/// Which Pod wants to join.
#[derive(Debug, Clone)]
pub struct PodJoin {
    /// Its UID.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// The UID of the Job that it belongs to.
    pub job_uid: String,
}

/// Who joined.
#[derive(Debug, Clone)]
pub struct Joined {
    /// Its name from now on.
    pub agent: AgentName,
    /// What a Pod runs.
    pub instance: Option<InstanceSpec>,
}

/// A node as `/metrics` tells of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// Its name.
    pub node: NodeName,
    /// What its agent last said; none if it is not connected.
    pub statistics: Option<NodeStatistics>,
    /// What it has in all.
    pub capacity: Resources,
    /// Kinds of its conditions.
    pub conditions: Vec<String>,
}

/// What a heartbeat tells; nothing of it is stored.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Statistics {
    /// What the machine does, if it was looked.
    pub node: Option<NodeStatistics>,
    /// The packages it has, if they have changed.
    pub packages: Option<BTreeSet<PackageDigest>>,
}

/// An agent that opens its session.
pub struct AgentOpened {
    /// Who it is, from its certificate's pinned key.
    pub agent: AgentName,
    /// The agent process's random id.
    pub incarnation: String,
    /// The machine's facts.
    pub facts: Facts,
    /// Newest desired set it has.
    pub accepted: Option<Order>,
    /// Everything it knows of.
    pub instances: Vec<InstanceStatus>,
    /// What control sends it; bounded: a full one ends the session.
    pub outbox: mpsc::Sender<ToAgent>,
}

/// A gateway process that begins to follow.
#[derive(Debug, Clone)]
pub struct GatewayOpened {
    /// The gateway's name.
    pub name: GatewayName,
    /// Where clients reach it.
    pub url: String,
    /// The process' random id; empty from gateways that have none.
    pub incarnation: String,
    /// Processes of this name that may still serve.
    pub beside: Vec<String>,
    /// Whether it accepts no connections any more.
    pub draining: bool,
}

/// What control sends to an agent.
pub enum ToAgent {
    /// The whole desired set.
    Desired {
        /// Its place in the order.
        order: Order,
        /// Its instances.
        instances: Vec<InstanceSpec>,
    },
    /// All who may come to its relay.
    Callers(Arc<Vec<Caller>>),
    /// Is anybody there? (Asked of an older session when a second one opens.)
    Ping(u64),
    /// The session is over, and why (code, message).
    Refuse(String, String),
}

/// Cheap to clone; the only way to the control actor.
#[derive(Clone)]
pub struct Handle {
    pub(super) mailbox: mpsc::Sender<Command>,
    /// Rings at every change of the services' views, for `watch`.
    pub(super) changed: watch::Receiver<u64>,
    /// Replans and facts for /metrics.
    pub(super) metrics: Arc<super::Metrics>,
}

impl Handle {
    /// Sends one command and waits for its answer. `unavailable` when control is shutting down.
    pub async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Problem> {
        let gone =
            || Problem::unavailable("the coordinator is shutting down; try again in a moment");
        let (reply, answer) = oneshot::channel();
        self.mailbox
            .send(command(reply))
            .await
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Sends one command that has no answer; lost only when control is shutting down.
    pub async fn tell(&self, command: Command) {
        // A closed mailbox means shutdown: nobody is left to act on it.
        let _ = self.mailbox.send(command).await;
    }

    /// Whether control answers and can keep what it answers for. Errors: 503, and why.
    ///
    /// Control answers only after it has loaded the whole state from the store, has taken its term
    /// there and has planned with it; so an answer is the proof that it has started.
    pub async fn ready(&self) -> Result<(), Problem> {
        self.alive().await?;
        if self.metrics.store_is_well() {
            return Ok(());
        }
        Err(Problem::unavailable(
            "the store takes no changes; `berth status` says why",
        ))
    }

    /// Control answers: its actor turns, whether or not its store is well.
    pub async fn alive(&self) -> Result<(), Problem> {
        self.ask(Command::Gateways).await.map(|_| ())
    }

    /// A receiver that changes whenever a service's view may have changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }

    /// Control's own figures.
    pub fn metrics(&self) -> &super::Metrics {
        &self.metrics
    }
}

/// Labels as text, for messages.
pub fn labels_text(labels: &BTreeMap<String, String>) -> String {
    labels
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect::<Vec<_>>()
        .join(",")
}
