//! The records and what is live, each in the planner's words.

use berth_model::gateway::GatewayRecord;
use berth_model::id::{GatewayName, InstanceId};
use berth_model::instance::{InstanceRecord, Phase, Stage};
use berth_model::job::JobRecord;
use berth_model::manifest::{Manifest, ModuleKind, Preset};
use berth_model::node::{Condition, Facts, NodeRecord, RuntimeKind};
use berth_model::service::{Revision, default_failure_domains};
use berth_model::time::Span;
use berth_plan::{ClusterSeen, GatewaySeen, InstanceSeen, JobWanted, Needs, NodeSeen};

use super::agent::AgentName;
use super::clusters::Cluster;
use super::commands::{drains, pools, tasks};
use super::live::{GatewayProcess, LiveAgent};
use super::world::World;

/// How long after an agent took over a set it may take to report what is in it.
const REPORT_GRACE: Span = Span::secs(5);

/// What an instance of a service's revision needs.
pub(crate) fn needs(world: &World, revision: &Revision) -> Needs {
    let manifest = world.model_of(revision).map(|m| &m.manifest);
    Needs {
        resources: manifest.map(|m| m.resources).unwrap_or_default(),
        runtime: revision.runtime,
        labels: pools::selector(world, &revision.node_labels),
        module: manifest.and_then(module),
        spread: revision.failure_domains(),
        package: Some(revision.digest),
    }
}

/// What is wanted of a job. Its deadline is over when `noted` says so, if it does: a clock that was set since makes
/// no difference then.
pub(crate) fn job(world: &World, job: &JobRecord) -> JobWanted {
    let mut wanted = JobWanted::of(job, world.now, world.wall);
    let noted = world.live.job_dues.get(&job.name).copied();
    wanted.due = wanted.due.map(|due| noted.unwrap_or(due));
    wanted
}

/// What a task of a job needs.
pub(crate) fn task_needs(world: &World, job: &JobRecord) -> Needs {
    let key = (job.model.clone(), job.serial);
    let manifest = world.records.models.get(&key).map(|m| &m.manifest);
    Needs {
        resources: manifest.map(|m| m.resources).unwrap_or_default(),
        runtime: job.runtime,
        labels: pools::selector(world, &job.node_labels),
        module: manifest.and_then(module),
        spread: default_failure_domains(),
        package: Some(job.digest),
    }
}

/// What a module needs that its package does not bring, in the words of a node's facts.
fn module(manifest: &Manifest) -> Option<String> {
    let module = &manifest.module;
    match (module.kind, module.preset) {
        (ModuleKind::TfServing, _) if module.command.is_empty() => Some("tf-serving".to_owned()),
        (_, Some(Preset::Python)) => Some("python".to_owned()),
        _ => None,
    }
}

/// Runtimes that a node has and that do not work there now.
pub(crate) fn broken(facts: &Facts) -> Vec<RuntimeKind> {
    let conditions = || facts.conditions.iter();
    let all = [RuntimeKind::Process, RuntimeKind::Docker];
    let is = |kind: &RuntimeKind| conditions().any(|c| c.kind == kind.to_string());
    all.into_iter().filter(is).collect()
}

/// A node.
pub(crate) fn node(world: &World, node: &NodeRecord) -> NodeSeen {
    let live = world.live.agents.get(&AgentName::Node(node.name.clone()));
    let drain = node.drain.as_ref();
    let mut conditions = node.facts.conditions.iter();
    NodeSeen {
        exclusive: node.facts.exclusive,
        capacity: node.facts.capacity,
        gpus: node.facts.gpus.iter().map(|g| g.uuid.clone()).collect(),
        labels: node.place_labels(),
        runtimes: node.facts.runtimes.clone(),
        broken: broken(&node.facts),
        modules: node.facts.modules.clone(),
        cordoned: node.cordoned,
        drain: drain.map(|drain| drains::seen(world, &node.name, drain)),
        lost: node.lost,
        session: world.session(&node.name),
        packages: live.map(|live| live.packages.clone()).unwrap_or_default(),
        disk_full: conditions.any(|c| c.kind == Condition::DISK_FULL),
    }
}

/// A cluster.
pub(crate) fn cluster(cluster: &Cluster) -> ClusterSeen {
    ClusterSeen {
        unreachable: cluster.unreachable(),
        labels: cluster.info.labels.clone(),
    }
}

/// In a cluster an instance has stopped for good only when nothing of its Job is left.
fn in_cluster(world: &World, record: &InstanceRecord) -> InstanceSeen {
    let ends = &world.live.ends;
    let gone = ends.gone.contains(&record.id);
    let is_task = tasks::job_of(world, record).is_some();
    let phase = match (record.stage, record.status.phase) {
        (Stage::Stopping | Stage::Lost, _) if gone => Phase::Stopped,
        (Stage::Stopping | Stage::Lost, Phase::Stopped) => Phase::Stopping,
        // It has said how it ended, and may still be sending its last lines.
        (Stage::Running, Phase::Stopped) if is_task && !gone => Phase::Stopping,
        (_, phase) => phase,
    };
    let failures = ends.streaks.get(&record.id.slot).copied().unwrap_or(1);
    let at = ends.ended.get(&record.id).copied().unwrap_or(world.started);
    InstanceSeen {
        place: record.place.clone(),
        reserved: record.reserved.unwrap_or_default(),
        gpus: record.gpus.clone(),
        stage: record.stage,
        phase,
        reported: true,
        draining_since: world.live.draining_since.get(&record.id).copied(),
        out_since: world.live.out_since.get(&record.id).copied(),
        ended: (phase == Phase::Stopped).then_some((at, failures)),
    }
}

/// An instance. But for what is on its way out, its record says everything.
pub(crate) fn instance(world: &World, record: &InstanceRecord) -> InstanceSeen {
    if record.place.cluster().is_some() {
        return in_cluster(world, record);
    }
    let live = world.live.agents.get(&AgentName::of(record));
    let never_was = live.is_some_and(|live| never_was(world, live, record));
    InstanceSeen {
        place: record.place.clone(),
        reserved: record.reserved.unwrap_or_default(),
        gpus: record.gpus.clone(),
        stage: record.stage,
        phase: if never_was {
            Phase::Stopped
        } else {
            record.status.phase
        },
        // It matters only of what is fenced.
        reported: record.stage == Stage::Running
            || live.is_none_or(|live| {
                live.last_heard.is_none() || live.reported.contains(&record.id) || unanswered(live)
            }),
        draining_since: world.live.draining_since.get(&record.id).copied(),
        out_since: world.live.out_since.get(&record.id).copied(),
        ended: None,
    }
}

/// Whether the agent has not taken over the newest set yet: it may have what it has not reported.
fn unanswered(live: &LiveAgent) -> bool {
    live.session.as_ref().is_none_or(|session| {
        let sent = live.sent.as_ref().map(|s| s.order);
        !session.current || session.acknowledged.map(|(order, _)| order) < sent
    })
}

/// Told to stop before its agent ever knew of it; the agent has taken over that order long since and
/// has nothing to say of it: there is nothing to stop.
fn never_was(world: &World, live: &LiveAgent, record: &InstanceRecord) -> bool {
    let acknowledged = live.session.as_ref().and_then(|s| s.acknowledged);
    record.stage == Stage::Stopping
        && !live.reported.contains(&record.id)
        && !unanswered(live)
        && acknowledged.is_some_and(|(_, at)| world.now.since(at) >= REPORT_GRACE.0)
}

/// A gateway. Of requests in flight only those matter that are for something on its way out.
pub(crate) fn gateway(world: &World, name: &GatewayName) -> GatewaySeen {
    let processes = world.live.gateways.get(name);
    let processes = processes.map_or(&[][..], |gateway| &gateway.processes);
    let leaving = |(id, _): &&(InstanceId, u64)| {
        let record = world.records.instances.get(id);
        record.is_some_and(|r| r.stage != Stage::Running)
    };
    let seen = |process: &GatewayProcess| GatewaySeen {
        session: process.session(world.settings.gateway_lease, world.now),
        acknowledged: process.report.acknowledged,
        in_flight: process
            .report
            .in_flight
            .iter()
            .filter(leaving)
            .cloned()
            .collect(),
        beside: Vec::new(),
    };
    // One that drains is not the gateway itself: that is still to come.
    let accepting = processes.iter().rposition(|p| !p.report.draining);
    let beside = processes.iter().enumerate();
    let beside = beside.filter(|(place, _)| Some(*place) != accepting);
    GatewaySeen {
        beside: beside.map(|(_, process)| seen(process)).collect(),
        ..accepting.map_or_else(GatewaySeen::default, |place| seen(&processes[place]))
    }
}

/// Whether a gateway is one to wait for.
pub(crate) fn is_used(record: &GatewayRecord) -> bool {
    !record.revoked && record.gone.is_none()
}
