//! Why a service is not as wanted, in sentences that say what to do.

use berth_model::instance::{InstanceRecord, Phase, Stage};
use berth_model::node::NodeState;
use berth_model::place::Place;
use berth_model::service::ServiceRecord;
use berth_plan::WaitReason;

use crate::control::world::World;

/// One reason; the more important first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Why {
    pub(crate) rank: Rank,
    pub(crate) text: String,
}

/// How much a reason matters, most first. Up to [`Rank::Silent`] something stands in the way; the
/// rest takes its course.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// No place to run.
    NoNode,
    /// An instance fails.
    Failing,
    /// Replacing is held back.
    Held,
    /// A node is not there.
    Silent,
    /// A new revision is not healthy yet.
    Rollout,
    /// A node is drained.
    Moving,
    /// Instances start or stop.
    Course,
}

impl Rank {
    /// Whether it does not go away by itself in the ordinary course.
    pub(crate) fn is_obstacle(self) -> bool {
        self <= Rank::Silent
    }
}

/// All reasons of a service, most important first.
pub(crate) fn of(
    world: &World,
    service: &ServiceRecord,
    instances: &[&InstanceRecord],
) -> Vec<Why> {
    let mut out: Vec<Why> = Vec::new();
    for waiting in world.waiting.iter().filter(|w| w.service == service.name) {
        let rank = match waiting.reason {
            WaitReason::NoNode { .. }
            | WaitReason::NoCluster { .. }
            | WaitReason::TasksWait { .. } => Rank::NoNode,
            WaitReason::MassLoss { .. } | WaitReason::Settling | WaitReason::Hold { .. } => {
                Rank::Held
            }
            WaitReason::BackOff { .. } => Rank::Course,
            WaitReason::RolloutWaits { .. } | WaitReason::RolloutNeedsPlace { .. } => Rank::Rollout,
            WaitReason::NoSpareNode { .. }
            | WaitReason::KeptServing { .. }
            | WaitReason::Moving { .. }
            | WaitReason::TaskEnds { .. } => Rank::Moving,
            WaitReason::Draining { .. } | WaitReason::Stopping { .. } => Rank::Course,
        };
        out.push(Why {
            rank,
            text: waiting.reason.to_string(),
        });
    }
    for record in instances {
        out.extend(instance(world, record));
    }
    // Stable, so that within a rank the planner's and the instances' order stays.
    out.sort_by_key(|why| why.rank);
    out
}

fn instance(world: &World, record: &InstanceRecord) -> Option<Why> {
    let (id, node) = (&record.id, &record.place);
    if record.stage != Stage::Running {
        return None;
    }
    if is_failing(record) {
        return Some(Why {
            rank: Rank::Failing,
            text: failing(record),
        });
    }
    if let Place::Node(node) = node
        && world.node_state(node) != NodeState::Ready
    {
        return Some(Why {
            rank: Rank::Silent,
            text: format!(
                "{id} is on node {node}, which is not connected: look at its berth-agent (`berth node show \
                 {node}`)"
            ),
        });
    }
    (record.status.phase != Phase::Healthy).then(|| Why {
        rank: Rank::Course,
        text: format!(
            "{id} on {node} is {}{}",
            doing(record.status.phase),
            why(record)
        ),
    })
}

/// Whether an instance does not get or stay healthy, rather than being on its first way there.
pub(crate) fn is_failing(record: &InstanceRecord) -> bool {
    let status = &record.status;
    let again = status.restarts > 0 && status.reason.is_some();
    record.stage == Stage::Running
        && match status.phase {
            Phase::Backoff | Phase::Unhealthy => true,
            Phase::Assigned | Phase::Preparing | Phase::Stopped => status.reason.is_some(),
            Phase::Starting => again,
            Phase::Healthy | Phase::Stopping => false,
        }
}

/// A phase as it stands in a sentence.
pub(crate) fn doing(phase: Phase) -> String {
    match phase {
        Phase::Backoff => "in backoff".to_owned(),
        other => other.to_string(),
    }
}

fn why(record: &InstanceRecord) -> String {
    let reason = record.status.reason.as_ref();
    reason.map(|r| format!(": {r}")).unwrap_or_default()
}

/// What ails an instance, with its last line and where to read more.
pub(crate) fn failing(record: &InstanceRecord) -> String {
    let (id, node, status) = (&record.id, &record.place, &record.status);
    let restarts = match status.restarts {
        0 => String::new(),
        1 => " (restarted once)".to_owned(),
        n => format!(" (restarted {n} times)"),
    };
    let last = status
        .last_lines
        .iter()
        .rev()
        .find(|l| !l.trim().is_empty());
    let last = last.map_or(String::new(), |l| {
        format!("; last line: {:?}", l.trim_end())
    });
    format!(
        "{id} on {node} is {}{}{restarts}{last}; see `berth logs {id}`",
        doing(status.phase),
        why(record)
    )
}
