//! The route table from the records: pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use berth_model::id::{InstanceId, ServiceName};
use berth_model::instance::{InstanceRecord, Phase, Stage};
use berth_model::place::Place;
use berth_model::relay::Relayed;
use berth_model::route::{RevisionRoute, ServiceRoute};
use berth_model::service::{Revision, ServiceRecord};
use berth_plan::WaitReason;

use super::views::reasons::doing;
use super::world::World;

/// Where a service's requests go; none if there is no such service.
///
/// An instance is in the table while it is healthy, shall run, and its node is not lost; a silent node
/// makes no difference. Instances whose checks fail are out, unless nothing better is left.
pub(crate) fn of(world: &World, name: &ServiceName) -> Option<ServiceRoute> {
    let service = world.records.services.get(name)?;
    let instances: Vec<&InstanceRecord> = world.records.instances_of(name).collect();
    Some(route(world, service, &instances))
}

/// Every service with the instances that take its requests, made from everything there is.
#[cfg(test)]
pub(crate) fn build(world: &World) -> BTreeMap<ServiceName, ServiceRoute> {
    let mut by_service: BTreeMap<&ServiceName, Vec<&InstanceRecord>> = BTreeMap::new();
    for record in world.records.instances.values() {
        by_service
            .entry(&record.id.slot.service)
            .or_default()
            .push(record);
    }
    let services = world.records.services.values();
    services
        .map(|service| {
            let instances = by_service.remove(&service.name).unwrap_or_default();
            (service.name.clone(), route(world, service, &instances))
        })
        .collect()
}

fn route(world: &World, service: &ServiceRecord, instances: &[&InstanceRecord]) -> ServiceRoute {
    let in_phase = |phase: Phase| -> Vec<&InstanceRecord> {
        let all = instances.iter().copied();
        all.filter(|r| takes_traffic(world, r) && r.status.phase == phase)
            .collect()
    };
    let mut ready = in_phase(Phase::Healthy);
    if ready.is_empty() {
        ready = in_phase(Phase::Unhealthy);
    }
    let mut route = ServiceRoute::default();
    for record in ready {
        let number = record.id.slot.revision;
        let (Some(revision), Some(address)) =
            (service.revisions.get(&number), record.status.address)
        else {
            continue;
        };
        let of = route
            .revisions
            .entry(number)
            .or_insert_with(|| revision_route(world, revision));
        match relayed(world, record, address) {
            Some(relayed) => drop(of.relayed.insert(record.id.clone(), relayed)),
            None => drop(of.instances.insert(record.id.clone(), address)),
        }
    }
    if route.revisions.is_empty() {
        route.unavailable_reason = unavailable(world, service, instances);
    }
    route
}

/// How an instance is reached that listens on the loopback of a node with a relay; none if it is dialled itself.
fn relayed(world: &World, record: &InstanceRecord, local: SocketAddr) -> Option<Relayed> {
    let node = record.place.node().filter(|_| local.ip().is_loopback())?;
    let relay = world.records.nodes.get(node)?.facts.relay.as_ref()?;
    Some(Relayed {
        address: relay.address,
        node: node.clone(),
        key: relay.key.clone(),
        local,
    })
}

fn takes_traffic(world: &World, record: &InstanceRecord) -> bool {
    let there = match &record.place {
        Place::Node(node) => world.records.nodes.get(node).is_some_and(|n| !n.lost),
        // Out of reach makes no difference, as a silent node makes none.
        Place::Cluster(_) => true,
    };
    record.stage == Stage::Running && record.status.address.is_some() && there
}

fn revision_route(world: &World, revision: &Revision) -> RevisionRoute {
    let manifest = world.model_of(revision).map(|m| &m.manifest);
    RevisionRoute {
        serial: revision.serial,
        version: revision.version.clone(),
        predict_path: manifest.and_then(|m| m.module.predict_path.clone()),
        protocol: manifest.map(|m| m.module.protocol).unwrap_or_default(),
        limits: manifest.map(|m| m.limits.clone()).unwrap_or_default(),
        instances: BTreeMap::new(),
        relayed: BTreeMap::new(),
    }
}

/// Why there is no instance, for clients. Only what stays so for a while: every change is a new table.
fn unavailable(world: &World, service: &ServiceRecord, instances: &[&InstanceRecord]) -> String {
    let name = &service.name;
    if service.deleting {
        return format!("service {name} is being deleted");
    }
    if service.replicas == 0 {
        return format!("service {name} is scaled to 0 instances");
    }
    let lasting = |r: &&WaitReason| {
        matches!(
            r,
            WaitReason::NoNode { .. }
                | WaitReason::NoCluster { .. }
                | WaitReason::MassLoss { .. }
                | WaitReason::Settling
        )
    };
    let mut waiting = world.waiting.iter().filter(|w| w.service == *name);
    if let Some(reason) = waiting.find_map(|w| Some(&w.reason).filter(lasting)) {
        return format!("no instance of {name} is ready: {reason}");
    }
    let of: Vec<String> = instances
        .iter()
        .filter(|r| r.stage == Stage::Running)
        .map(|r| state(&r.id, r))
        .collect();
    if of.is_empty() {
        format!("no instance of {name} is ready yet")
    } else {
        format!("no instance of {name} is ready: {}", of.join(", "))
    }
}

fn state(id: &InstanceId, record: &InstanceRecord) -> String {
    match (&record.status.reason, record.status.phase) {
        (Some(reason), phase) => format!("{id} is {}: {reason}", doing(phase)),
        (None, phase) => format!("{id} is {}", doing(phase)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::{instance, node_record, world_with_service};

    fn ids(route: &ServiceRoute) -> Vec<String> {
        let revisions = route.revisions.values();
        revisions
            .flat_map(|r| r.instances.keys().map(ToString::to_string))
            .collect()
    }

    fn web(world: &World) -> ServiceRoute {
        build(world).remove("web").unwrap()
    }

    fn set(world: &mut World, id: &str, change: impl FnOnce(&mut InstanceRecord)) {
        let id: InstanceId = id.parse().unwrap();
        let mut record = world.records.instances[&id].clone();
        change(&mut record);
        world.records.instances.put(id, record);
    }

    #[test]
    fn failing_instances_are_out_unless_nothing_better_is_left() {
        let mut w = world_with_service();
        let node = node_record("n2", true);
        w.records.nodes.put(node.name.clone(), node);
        let other = instance("web.1.1.1", "n2", Phase::Unhealthy);
        w.records.instances.put(other.id.clone(), other);
        assert_eq!(ids(&web(&w)), ["web.1.0.1"]);
        set(&mut w, "web.1.0.1", |r| r.status.phase = Phase::Unhealthy);
        assert_eq!(ids(&web(&w)), ["web.1.0.1", "web.1.1.1"]);
        set(&mut w, "web.1.0.1", |r| r.status.phase = Phase::Backoff);
        assert_eq!(ids(&web(&w)), ["web.1.1.1"]);
        set(&mut w, "web.1.1.1", |r| r.stage = Stage::Draining);
        let route = web(&w);
        assert!(route.revisions.is_empty());
        assert_eq!(
            route.unavailable_reason,
            "no instance of web is ready: web.1.0.1 is in backoff"
        );
    }

    #[test]
    fn what_listens_on_the_loopback_of_a_node_with_a_relay_is_reached_through_it() {
        let mut w = world_with_service();
        let name: berth_model::id::NodeName = "n1".parse().unwrap();
        let mut node = w.records.nodes[&name].clone();
        node.facts.relay = Some(berth_model::relay::RelayFacts {
            address: "10.0.0.7:7460".parse().unwrap(),
            key: "aa".to_owned(),
        });
        w.records.nodes.put(name.clone(), node);
        let route = web(&w);
        let revision = &route.revisions[&1];
        assert!(
            revision.instances.is_empty(),
            "no gateway may dial its own loopback"
        );
        let id: InstanceId = "web.1.0.1".parse().unwrap();
        let relayed = &revision.relayed[&id];
        assert_eq!(relayed.address.to_string(), "10.0.0.7:7460");
        assert_eq!((&relayed.node, relayed.key.as_str()), (&name, "aa"));
        assert!(relayed.local.ip().is_loopback());
        // One that was started to be dialled itself is, until it is started anew.
        set(&mut w, "web.1.0.1", |r| {
            r.status.address = Some("10.0.0.7:21000".parse().unwrap())
        });
        let route = web(&w);
        assert!(route.revisions[&1].relayed.is_empty());
        assert_eq!(route.revisions[&1].instances.len(), 1);
    }

    #[test]
    fn a_silent_node_stays_and_a_lost_one_goes() {
        let mut w = world_with_service();
        let route = web(&w);
        assert_eq!(route.revisions[&1].serial, 1);
        w.live.agents.clear();
        assert_eq!(web(&w), route);
        let mut node = node_record("n1", true);
        node.lost = true;
        w.records.nodes.put(node.name.clone(), node);
        assert!(web(&w).revisions.is_empty());
    }

    #[test]
    fn a_service_without_instances_says_why() {
        let mut w = world_with_service();
        let id: InstanceId = "web.1.0.1".parse().unwrap();
        w.records.instances.remove(&id);
        assert_eq!(
            web(&w).unavailable_reason,
            "no instance of web is ready yet"
        );
        let mut service = w.records.services["web"].clone();
        service.replicas = 0;
        w.records
            .services
            .put(service.name.clone(), service.clone());
        assert!(web(&w).unavailable_reason.contains("scaled to 0"));
        service.deleting = true;
        w.records.services.put(service.name.clone(), service);
        assert!(web(&w).unavailable_reason.contains("being deleted"));
    }
}
