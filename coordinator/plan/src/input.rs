//! What a plan is made from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use berth_model::digest::PackageDigest;
use berth_model::id::{ClusterName, GatewayName, InstanceId, JobName, NodeName, ServiceName, Slot};
use berth_model::instance::{Phase, Stage};
use berth_model::job::JobRecord;
use berth_model::node::RuntimeKind;
use berth_model::place::Place;
use berth_model::resources::Resources;
use berth_model::route::Order;
use berth_model::service::ServiceRecord;
use berth_model::time::{Monotonic, Span, Timestamp};

/// What users want.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Desired {
    /// The services.
    pub services: BTreeMap<ServiceName, ServiceRecord>,
    /// What an instance of (service, revision), or a task of a job of that name, needs of its node.
    pub needs: BTreeMap<(ServiceName, u32), Needs>,
    /// The jobs.
    pub jobs: BTreeMap<JobName, JobWanted>,
}

/// What is wanted of a job, as far as planning goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobWanted {
    /// The revision in its tasks' identities.
    pub revision: u32,
    /// How many shards there are.
    pub completions: u32,
    /// Tasks at a time.
    pub parallelism: u32,
    /// Shards whose output is committed.
    pub done: BTreeSet<u32>,
    /// It has succeeded or failed: nothing of it shall run.
    pub over: bool,
    /// It is to go when nothing of it is left.
    pub deleting: bool,
    /// Nothing of it is left, and that is known already.
    pub emptied: bool,
    /// When its deadline is over; never for a Job in a cluster, whose deadline Kubernetes keeps.
    pub due: Option<Monotonic>,
    /// Kubernetes makes and counts its tasks: none is created here.
    pub in_cluster: bool,
    /// The cluster that has its Job: what is left there goes before its record does.
    pub cluster: Option<ClusterName>,
    /// Older jobs are placed first.
    pub created: Timestamp,
}

impl JobWanted {
    /// What a job's record wants, at a time by both clocks.
    pub fn of(job: &JobRecord, now: Monotonic, wall: Timestamp) -> Self {
        Self {
            revision: job.revision,
            completions: job.completions(),
            parallelism: job.parallelism,
            done: job.outputs.keys().copied().collect(),
            over: job.state.is_over(),
            deleting: job.deleting,
            emptied: job.emptied,
            due: Self::due(job, now, wall),
            in_cluster: !job.counts_here(),
            cluster: job.cluster.clone(),
            created: job.created,
        }
    }

    /// When a job's deadline is over; never for a Job in a cluster, whose deadline Kubernetes keeps.
    pub fn due(job: &JobRecord, now: Monotonic, wall: Timestamp) -> Option<Monotonic> {
        let due = job.due().filter(|_| job.counts_here())?;
        Some(Monotonic(
            now.0.saturating_add(due.0.saturating_sub(wall.0)),
        ))
    }
}

/// Most labels of failure domains that a revision may be spread over.
pub const MAX_SPREAD: usize = 4;

/// What an instance needs of its node.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Needs {
    /// Amounts to reserve.
    pub resources: Resources,
    /// What starts it.
    pub runtime: RuntimeKind,
    /// Labels the node or cluster must have (a pool is one: `pool=NAME`).
    pub labels: BTreeMap<String, String>,
    /// What the process runtime must find on the node: `tf-serving` or `python`.
    pub module: Option<String>,
    /// Labels of the failure domains that instances are spread over, the widest first; at most [`MAX_SPREAD`]
    /// count.
    pub spread: Vec<String>,
    /// Its package: a node that has it is preferred to one that is otherwise as good.
    pub package: Option<PackageDigest>,
}

/// What is there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// The nodes.
    pub nodes: BTreeMap<NodeName, NodeSeen>,
    /// The configured clusters.
    pub clusters: BTreeMap<ClusterName, ClusterSeen>,
    /// All instances that have a record.
    pub instances: BTreeMap<InstanceId, InstanceSeen>,
    /// Highest attempt ever committed per slot, also of instances long gone.
    pub attempts: BTreeMap<Slot, u32>,
    /// The gateways that are known.
    pub gateways: BTreeMap<GatewayName, GatewaySeen>,
    /// When this coordinator began to listen; silence before that does not count.
    pub started: Monotonic,
    /// Set after a restore until every node has been heard of or the lease is over: nothing may be
    /// created, drained or stopped yet.
    pub settling: bool,
    /// Deadlines and limits.
    pub settings: Settings,
}

/// One node as seen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeSeen {
    /// Takes one instance at a time.
    pub exclusive: bool,
    /// What it has in all.
    pub capacity: Resources,
    /// UUIDs of its GPUs.
    pub gpus: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Runtimes that work there.
    pub runtimes: Vec<RuntimeKind>,
    /// Runtimes that are there and do not work now: a condition of the node.
    pub broken: Vec<RuntimeKind>,
    /// Module servers that are installed there.
    pub modules: Vec<String>,
    /// Takes no new instances.
    pub cordoned: bool,
    /// Is being emptied; such a node is cordoned, too.
    pub drain: Option<DrainSeen>,
    /// Was declared lost (persisted).
    pub lost: bool,
    /// Whether its agent is there.
    pub session: Session,
    /// Packages that are unpacked there, as far as its agent has said in this term.
    pub packages: Arc<BTreeSet<PackageDigest>>,
    /// Its disk is full: it can take no package that it does not have.
    pub disk_full: bool,
}

/// A node that is being emptied, as seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DrainSeen {
    /// When its deadline is over.
    pub due: Monotonic,
    /// At the deadline everything is stopped.
    pub force: bool,
    /// It is known to be empty already.
    pub drained: bool,
}

/// Whether an agent is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Session {
    /// It has a live session.
    Connected,
    /// Last heard of then; for nodes not heard of since the coordinator's start, that start.
    Silent(Monotonic),
    /// Known from the store only, not heard of yet.
    #[default]
    NotYet,
}

/// One instance as seen.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceSeen {
    /// Where it is.
    pub place: Place,
    /// What is reserved for it there.
    pub reserved: Resources,
    /// UUIDs of the node's GPUs that are its own.
    pub gpus: Vec<String>,
    /// How far its stopping has come (persisted).
    pub stage: Stage,
    /// What its agent last said.
    pub phase: Phase,
    /// Whether its (connected) agent has it in what it reports. False only when the agent was heard
    /// in this term and did not have it.
    pub reported: bool,
    /// When it began draining, or this coordinator's start if that was before.
    pub draining_since: Option<Monotonic>,
    /// The first published table without it.
    pub out_since: Option<Order>,
    /// In a cluster: when it ended by itself, and how many attempts of its slot did so in a row.
    pub ended: Option<(Monotonic, u32)>,
}

/// One cluster as seen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClusterSeen {
    /// Why its API server is out of reach; none when it answers.
    pub unreachable: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// One gateway as seen: the process that accepts connections.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GatewaySeen {
    /// Whether it is there.
    pub session: Session,
    /// The table it uses for every request from now on.
    pub acknowledged: Order,
    /// Its requests in flight by instance; absent is none.
    pub in_flight: BTreeMap<InstanceId, u64>,
    /// Processes of the same name that it takes over from, and that finish what they began.
    pub beside: Vec<GatewaySeen>,
}

/// Deadlines and limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Silence after which a node is lost.
    pub node_lease: Span,
    /// Silence after which a gateway no longer holds up stopping.
    pub gateway_lease: Span,
    /// Longest time an instance drains.
    pub drain_deadline: Span,
    /// Share of nodes (percent) that may fall silent within one lease before replacing waits.
    pub mass_loss_percent: u32,
}

/// 30 s node lease, 15 s gateway lease, 30 s drain deadline, 30 %.
impl Default for Settings {
    fn default() -> Self {
        Self {
            node_lease: Span::secs(30),
            gateway_lease: Span::secs(15),
            drain_deadline: Span::secs(30),
            mass_loss_percent: 30,
        }
    }
}
