//! What is wrong? Everything that somebody should look at, worst first.

use std::collections::BTreeMap;

use berth_model::api::{GatewayView, ServiceState, ServiceView, StatusProblem, StatusView};
use berth_model::event::Level;
use berth_model::id::NodeName;
use berth_model::node::NodeState;
use berth_plan::WaitReason;

use super::{gateway, job, node, reasons, service};
use crate::control::clusters::Reach;
use crate::control::world::World;
use crate::disk;

/// More problems than one screen holds help nobody.
const MANY: usize = 50;

/// The whole status.
pub(crate) fn status(world: &World) -> StatusView {
    let services = service::all(world);
    let mut by_phase: BTreeMap<String, u32> = BTreeMap::new();
    for record in world.records.instances.values() {
        *by_phase.entry(record.status.phase.to_string()).or_default() += 1;
    }
    let mut by_state: BTreeMap<String, u32> = BTreeMap::new();
    for view in &services {
        *by_state.entry(view.state.to_string()).or_default() += 1;
    }
    let mut problems = coordinator(world);
    problems.extend(nodes(world));
    problems.extend(clusters(world));
    problems.extend(of_services(&services));
    problems.extend(instances(world));
    problems.extend(gateways(world));
    problems.extend(super::transport::problem(world));
    // Worst first; within a level the coordinator's own before nodes, clusters, services, instances, gateways.
    problems.sort_by_key(|p| std::cmp::Reverse(p.level));
    problems.truncate(MANY);
    StatusView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        problems,
        nodes: node::by_state(world),
        services: by_state,
        instances: by_phase,
        gateways: gateway::all(world),
        jobs: job::by_state(world),
        transport: super::transport::word(world),
    }
}

fn problem(level: Level, subject: impl Into<String>, message: impl Into<String>) -> StatusProblem {
    StatusProblem {
        level,
        subject: subject.into(),
        message: message.into(),
    }
}

fn coordinator(world: &World) -> Vec<StatusProblem> {
    let mut out = Vec::new();
    if let Some(error) = &world.store_problem {
        out.push(problem(
            Level::Error,
            "coordinator",
            format!("changes cannot be stored and are refused: {error}; what runs goes on"),
        ));
    }
    let says = &world.disk.says;
    match world.disk.level {
        disk::Level::Well => {}
        disk::Level::Low => out.push(problem(
            Level::Warning,
            "coordinator",
            format!("disk-low: {says}; make room before it is full: lower log_max_bytes, delete models"),
        )),
        disk::Level::Full => out.push(problem(
            Level::Error,
            "coordinator",
            format!(
                "disk-full: {says}; changes, pushes and lines of logs are refused while there is no room for them, and \
                 come again by themselves; make room: lower log_max_bytes, delete models, or enlarge the disk"
            ),
        )),
    }
    if world.settling {
        out.push(problem(
            Level::Warning,
            "coordinator",
            "the store was restored from a backup: nothing is changed until every node has reported or \
             its lease is over",
        ));
    }
    if let Some((silent, nodes)) = world.mass_loss() {
        out.push(problem(
            Level::Error,
            "nodes",
            format!(
                "mass-loss: {silent} of {nodes} nodes fell silent together, so nothing is replaced; look at \
                 the network between them and the coordinator"
            ),
        ));
    }
    out
}

fn nodes(world: &World) -> Vec<StatusProblem> {
    let mut out = Vec::new();
    for name in world.records.nodes.keys() {
        let subject = format!("node/{name}");
        match world.node_state(name) {
            NodeState::Ready => {}
            NodeState::Silent => out.push(problem(
                Level::Warning,
                subject,
                "not connected; nothing is replaced until its lease is over: look at its berth-agent",
            )),
            NodeState::Lost => out.push(problem(
                Level::Error,
                subject,
                format!(
                    "lost: its instances are replaced elsewhere; start its berth-agent again, or take it out \
                     with `berth node remove {name}`"
                ),
            )),
        }
        out.extend(conditions(world, name));
        out.extend(drain(world, name));
        let live = world
            .live
            .agents
            .get(&crate::control::AgentName::Node(name.clone()));
        let refused = live.and_then(|n| n.session.as_ref()?.refused.as_ref());
        if let Some(why) = refused {
            out.push(problem(
                Level::Error,
                format!("node/{name}"),
                format!("its agent refuses what it shall run: {why}"),
            ));
        }
    }
    out
}

/// What its agent says that does not work there.
fn conditions(world: &World, name: &NodeName) -> Vec<StatusProblem> {
    let ready = matches!(world.node_state(name), NodeState::Ready);
    let record = world.records.nodes.get(name).filter(|_| ready);
    let conditions = record.into_iter().flat_map(|r| &r.facts.conditions);
    conditions
        .map(|c| {
            problem(
                Level::Warning,
                format!("node/{name}"),
                format!("{}: {}", c.kind, c.message),
            )
        })
        .collect()
}

/// A drain that does not get on by itself.
fn drain(world: &World, name: &NodeName) -> Option<StatusProblem> {
    let view = node::drain(world, world.records.nodes.get(name)?)?;
    let waits = world.waiting.iter().find(|w| {
        let held = matches!(
            w.reason,
            WaitReason::NoSpareNode { .. } | WaitReason::KeptServing { .. }
        );
        held && w.reason.drained_node() == Some(name)
    })?;
    let message = format!(
        "drains, {} of {} moved: {}",
        view.moved, view.total, waits.reason
    );
    Some(problem(Level::Warning, format!("node/{name}"), message))
}

/// Clusters out of reach, and what does not work in the others.
fn clusters(world: &World) -> Vec<StatusProblem> {
    let mut out = Vec::new();
    for (name, cluster) in &world.clusters {
        let subject = format!("cluster/{name}");
        match &cluster.reach {
            Reach::Unreachable { why } => out.push(problem(
                Level::Error,
                subject,
                format!("out of reach, so what runs there is left as it is: {why}"),
            )),
            Reach::Ready { lacking: Some(why) } => {
                out.push(problem(Level::Warning, subject, why.clone()));
            }
            Reach::Ready { lacking: None } | Reach::Connecting => {}
        }
    }
    out
}

fn of_services(services: &[ServiceView]) -> Vec<StatusProblem> {
    let mut out = Vec::new();
    for view in services {
        let level = match view.state {
            ServiceState::Unavailable => Level::Error,
            ServiceState::Degraded => Level::Warning,
            ServiceState::Ready | ServiceState::Progressing | ServiceState::Deleting => continue,
        };
        let why = view.reasons.first().map(|r| format!(": {r}"));
        let message = format!(
            "{}, {} of {} instances ready{}",
            view.state,
            view.ready,
            view.replicas,
            why.unwrap_or_default()
        );
        out.push(problem(level, format!("service/{}", view.name), message));
    }
    out
}

fn instances(world: &World) -> Vec<StatusProblem> {
    let records = world.records.instances.values();
    records
        .filter(|r| reasons::is_failing(r))
        .map(|r| {
            let subject = format!("instance/{}", r.id);
            problem(Level::Warning, subject, reasons::failing(r))
        })
        .collect()
}

fn gateways(world: &World) -> Vec<StatusProblem> {
    let all = gateway::all(world);
    let mut out = Vec::new();
    if !world.records.services.is_empty() && !all.iter().any(|g| g.connected) {
        out.push(problem(
            Level::Error,
            "gateways",
            "no gateway is connected, so route changes reach none: start one with \
             `berth-coordinator --role gateway`",
        ));
    }
    for g in all.iter().filter(|g| !g.untold.is_empty()) {
        let nodes: Vec<&str> = g.untold.iter().map(NodeName::as_str).collect();
        out.push(problem(
            Level::Warning,
            format!("gateway/{}", g.name),
            format!(
                "revoked, but it is not known whether these nodes' relays were told, as their agents are not connected \
                 or have trouble with them: {}; a relay that was not lets it in until then: if its key may be in wrong \
                 hands, close their port on the network or stop berth-relay there",
                few(&nodes)
            ),
        ));
    }
    let records = &world.records.gateways;
    let gone = |g: &GatewayView| records.get(&g.name).is_some_and(|r| r.gone.is_some());
    for g in all.iter().filter(|g| !g.revoked && !gone(g)) {
        let subject = format!("gateway/{}", g.name);
        if !g.connected {
            out.push(problem(
                Level::Warning,
                subject,
                format!(
                    "not connected: it serves by the last route table it had ({})",
                    g.url
                ),
            ));
        } else if !g.current {
            let message = "has not taken the newest route table yet";
            out.push(problem(Level::Info, subject, message));
        }
    }
    out
}

/// The first of many names.
fn few(names: &[&str]) -> String {
    const FEW: usize = 5;
    match names.len().checked_sub(FEW) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..FEW].join(", ")),
    }
}
