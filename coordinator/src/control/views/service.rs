//! Services as the API shows them.

use std::collections::BTreeMap;

use berth_model::api::{InstanceView, RevisionView, ServiceState, ServiceView};
use berth_model::id::{NodeName, ServiceName};
use berth_model::instance::{InstanceRecord, Phase, Stage};
use berth_model::problem::Problem;
use berth_model::service::{Revision, ServiceRecord};
use berth_plan::{WaitReason, Waiting};

use super::reasons::{self, Why};
use crate::control::commands::services::find;
use crate::control::world::World;

/// All services by name.
pub(crate) fn all(world: &World) -> Vec<ServiceView> {
    let by_service = grouped(world);
    let services = world.records.services.values();
    let none = Vec::new();
    services
        .filter_map(|s| view(world, s, by_service.get(&s.name).unwrap_or(&none)))
        .collect()
}

/// One service. Errors: 404 with what may have been meant.
pub(crate) fn one(world: &World, name: &ServiceName) -> Result<ServiceView, Problem> {
    let service = find(world, name)?;
    let view = view(world, service, &instances(world, name));
    let mut view =
        view.ok_or_else(|| Problem::internal(format!("service {name} has no revision")))?;
    view.rejected = rejected(world, service);
    Ok(view)
}

/// Why each node cannot take an instance, while one has none.
fn rejected(world: &World, service: &ServiceRecord) -> BTreeMap<NodeName, String> {
    let lacks =
        |w: &Waiting| w.service == service.name && matches!(w.reason, WaitReason::NoNode { .. });
    let current = service
        .current()
        .filter(|_| world.waiting.iter().any(lacks));
    let why = current.map(|current| world.planner.explain(&service.name, current.number));
    let why = why.unwrap_or_default().into_iter();
    why.map(|(node, rejection)| (node, rejection.to_string()))
        .collect()
}

/// Services by state, for the status page and the metrics.
pub(crate) fn by_state(world: &World) -> BTreeMap<String, u32> {
    let by_service = grouped(world);
    let none = Vec::new();
    let mut out = BTreeMap::new();
    for service in world.records.services.values() {
        let instances = by_service.get(&service.name).unwrap_or(&none);
        let whys = reasons::of(world, service, instances);
        let state = state(service, instances, &whys).to_string();
        *out.entry(state).or_default() += 1;
    }
    out
}

fn grouped(world: &World) -> BTreeMap<ServiceName, Vec<&InstanceRecord>> {
    let mut by_service: BTreeMap<ServiceName, Vec<&InstanceRecord>> = BTreeMap::new();
    for record in world.records.instances.values() {
        let name = record.id.slot.service.clone();
        by_service.entry(name).or_default().push(record);
    }
    by_service
}

fn instances<'a>(world: &'a World, name: &ServiceName) -> Vec<&'a InstanceRecord> {
    world.records.instances_of(name).collect()
}

/// Healthy and taking traffic.
fn is_ready(record: &InstanceRecord) -> bool {
    record.stage == Stage::Running && record.status.phase == Phase::Healthy
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn view(
    world: &World,
    service: &ServiceRecord,
    instances: &[&InstanceRecord],
) -> Option<ServiceView> {
    let current = service.current()?;
    let whys = reasons::of(world, service, instances);
    let mut sorted = instances.to_vec();
    sorted.sort_by_key(|r| {
        let newer = std::cmp::Reverse(r.id.slot.revision);
        (newer, r.id.slot.ordinal, r.id.attempt)
    });
    Some(ServiceView {
        name: service.name.clone(),
        state: state(service, instances, &whys),
        replicas: service.replicas,
        ready: count(instances.iter().filter(|r| is_ready(r)).count()),
        revision: current.number,
        model: current.model.clone(),
        version: current.version.clone(),
        serial: current.serial,
        max_unavailable: service.max_unavailable,
        fleet: service.fleet.clone(),
        revisions: service
            .revisions
            .values()
            .rev()
            .map(|r| revision(r, instances))
            .collect(),
        instances: sorted.into_iter().map(|r| instance(world, r)).collect(),
        reasons: whys.into_iter().map(|why| why.text).collect(),
        rejected: BTreeMap::new(),
        created: service.created,
        updated: service.updated,
    })
}

/// What holds for a service.
pub(crate) fn state(
    service: &ServiceRecord,
    instances: &[&InstanceRecord],
    whys: &[Why],
) -> ServiceState {
    let current = service.current().map(|r| r.number);
    if service.deleting {
        return ServiceState::Deleting;
    }
    let ready = instances.iter().filter(|r| is_ready(r));
    let (new, old): (Vec<&&InstanceRecord>, Vec<_>) =
        ready.partition(|r| Some(r.id.slot.revision) == current);
    // What is fenced on a lost node has been replaced already.
    let leftovers = instances
        .iter()
        .filter(|r| r.stage != Stage::Lost)
        .any(|r| Some(r.id.slot.revision) != current || r.stage != Stage::Running);
    let obstacle = whys.iter().any(|why| why.rank.is_obstacle());
    if count(new.len()) == service.replicas && !leftovers {
        ServiceState::Ready
    } else if !obstacle {
        ServiceState::Progressing
    } else if new.is_empty() && old.is_empty() {
        ServiceState::Unavailable
    } else {
        ServiceState::Degraded
    }
}

fn revision(revision: &Revision, instances: &[&InstanceRecord]) -> RevisionView {
    let of_it = |r: &&&InstanceRecord| r.id.slot.revision == revision.number && is_ready(r);
    RevisionView {
        number: revision.number,
        model: revision.model.clone(),
        version: revision.version.clone(),
        serial: revision.serial,
        digest: revision.digest,
        runtime: revision.runtime,
        pool: revision.pool.clone(),
        spread: revision.spread.clone(),
        replicas: revision.replicas,
        ready: count(instances.iter().filter(of_it).count()),
    }
}

pub(crate) fn instance(world: &World, record: &InstanceRecord) -> InstanceView {
    InstanceView {
        node: record.place.clone(),
        node_state: world.place_state(&record.place),
        stage: record.stage,
        gpus: record.gpus.clone(),
        status: record.status.clone(),
        created: record.created,
    }
}
