//! What a plan says.

use berth_model::id::{ClusterName, GatewayName, InstanceId, JobName, NodeName, ServiceName};
use berth_model::place::Place;
use berth_model::resources::Resources;
use berth_model::time::Monotonic;

use crate::Rejection;

/// What to do now, what waits and why, and when to look again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// What to do, in order. Each is committed before it is applied.
    pub actions: Vec<Action>,
    /// What is not done and why.
    pub waiting: Vec<Waiting>,
    /// When time alone changes the plan; none if only news can.
    pub wake: Option<Monotonic>,
}

/// One change to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The rollout gives a revision another number of instances.
    SetReplicas {
        /// The service.
        service: ServiceName,
        /// The revision.
        revision: u32,
        /// Instances it shall have now.
        replicas: u32,
    },
    /// An old revision has no instances left and is not wanted.
    DropRevision {
        /// The service.
        service: ServiceName,
        /// The revision.
        revision: u32,
    },
    /// A deleted service has no instances left.
    DropService {
        /// The service.
        service: ServiceName,
    },
    /// Start a new instance (its attempt is committed with it).
    Create {
        /// Its identity.
        id: InstanceId,
        /// Where.
        place: Place,
        /// What is reserved for it there.
        reserved: Resources,
        /// UUIDs of the node's GPUs that are its own.
        gpus: Vec<String>,
    },
    /// Take it out of the route table (stage draining).
    Drain {
        /// Which.
        id: InstanceId,
        /// For the event, as in `scale-down`, `replaced by revision 2`, `service deleted`.
        why: String,
    },
    /// Tell it to stop (stage stopping): the gateways have let go of it.
    Stop {
        /// Which.
        id: InstanceId,
        /// Whether the drain deadline was over before every gateway had let go.
        deadline: bool,
    },
    /// Tell a task to stop (stage stopping): no gateway knows of it.
    EndTask {
        /// Which.
        id: InstanceId,
        /// For the event, as in `the job failed`.
        why: String,
    },
    /// Make a job's Job in a cluster.
    PlaceJob {
        /// Which.
        job: JobName,
        /// Where.
        cluster: ClusterName,
    },
    /// A job's deadline is over: it has failed.
    ExpireJob {
        /// Which.
        job: JobName,
    },
    /// Nothing of a deleted job runs any more: what it left can go, then its record.
    DropJob {
        /// Which.
        job: JobName,
    },
    /// Its record goes: it has stopped, or its node is gone for good.
    Forget {
        /// Which.
        id: InstanceId,
    },
    /// Its node was lost (stage lost): fenced, to be replaced.
    LoseInstance {
        /// Which.
        id: InstanceId,
    },
    /// The node's lease is over.
    LoseNode {
        /// Which.
        node: NodeName,
    },
    /// A lost node is back.
    ReturnNode {
        /// Which.
        node: NodeName,
    },
    /// Nothing is left on a node that is drained.
    NodeDrained {
        /// Which.
        node: NodeName,
    },
    /// A gateway has been silent for its lease: stopping no longer waits for it.
    ForgetGateway {
        /// Which.
        gateway: GatewayName,
    },
}

/// One thing that is not done yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The service it concerns, or the job of that name.
    pub service: ServiceName,
    /// Why.
    pub reason: WaitReason,
}

/// Why something is not done; typed, shown to people by `Display`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitReason {
    /// No node can take a wanted instance.
    NoNode {
        /// Instances that wait.
        missing: u32,
        /// Nodes there are.
        nodes: u32,
        /// How many nodes were rejected for which reason, most first.
        rejected: Vec<(u32, Rejection)>,
        /// What to do about it.
        advice: String,
    },
    /// No cluster can take a wanted instance.
    NoCluster {
        /// Instances that wait.
        missing: u32,
        /// Clusters there are.
        clusters: u32,
        /// How many clusters were rejected for which reason.
        rejected: Vec<(u32, Rejection)>,
    },
    /// An instance in a cluster ended by itself and is replaced after a while.
    BackOff {
        /// Which.
        id: InstanceId,
        /// How many of its slot ended so in a row.
        failures: u32,
    },
    /// What is in a cluster cannot be changed now.
    Hold {
        /// The cluster.
        cluster: ClusterName,
        /// Why.
        why: String,
    },
    /// No node can take a task now.
    TasksWait {
        /// Tasks that wait.
        missing: u32,
        /// Nodes there are.
        nodes: u32,
        /// How many nodes were rejected for which reason, most first.
        rejected: Vec<(u32, Rejection)>,
        /// What to do about it; empty if there is nothing to do but to wait.
        advice: String,
    },
    /// Too many nodes fell silent at once.
    MassLoss {
        /// Silent nodes.
        silent: u32,
        /// Nodes there are.
        nodes: u32,
    },
    /// A new revision's instances are not healthy yet.
    RolloutWaits {
        /// The new revision.
        revision: u32,
        /// Of its instances, how many are healthy.
        healthy: u32,
        /// How many it has now.
        instances: u32,
    },
    /// A new revision needs a spare place: giving up an old instance for it would be more than
    /// `max_unavailable` allows.
    RolloutNeedsPlace {
        /// The new revision.
        revision: u32,
        /// Healthy instances of the service now.
        healthy: u32,
        /// How many may be missing.
        max_unavailable: u32,
    },
    /// Its node is drained: it stays until the instance that takes its place is healthy.
    Moving {
        /// Which.
        id: InstanceId,
        /// The node that is drained.
        node: NodeName,
    },
    /// Its node is drained, and no other node can take it.
    NoSpareNode {
        /// Which.
        id: InstanceId,
        /// The node that is drained.
        node: NodeName,
        /// Nodes there are.
        nodes: u32,
        /// How many nodes were rejected for which reason, most first.
        rejected: Vec<(u32, Rejection)>,
    },
    /// Its node is drained and the deadline is over, but stopping it would leave more missing than
    /// `max_unavailable` allows.
    KeptServing {
        /// Which.
        id: InstanceId,
        /// The node that is drained.
        node: NodeName,
        /// How many may be missing.
        max_unavailable: u32,
    },
    /// Its node is drained: the task may end by itself until the deadline.
    TaskEnds {
        /// Which.
        id: InstanceId,
        /// The node that is drained.
        node: NodeName,
    },
    /// An instance drains.
    Draining {
        /// Which.
        id: InstanceId,
        /// What it waits for.
        on: String,
    },
    /// An instance is told to stop and has not yet.
    Stopping {
        /// Which.
        id: InstanceId,
    },
    /// The coordinator was restored from a backup and looks before it acts.
    Settling,
}

impl WaitReason {
    /// The node whose draining this is about.
    pub fn drained_node(&self) -> Option<&NodeName> {
        match self {
            Self::Moving { node, .. }
            | Self::NoSpareNode { node, .. }
            | Self::KeptServing { node, .. }
            | Self::TaskEnds { node, .. } => Some(node),
            _ => None,
        }
    }
}
