//! From the records to what each cluster shall run.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_model::id::ClusterName;
use berth_model::instance::{InstanceRecord, Stage};
use berth_model::token::JoinToken;

use super::{Orders, WorkName, WorkOrder, pod_secret};
use crate::control::publish;
use crate::control::world::World;

/// What a Pod's token begins with in its public part, before the name of its work in hexadecimal.
pub(super) const POD: &str = "pod-";

/// Tells every cluster's task what it shall run, where that has changed.
pub(crate) fn publish(world: &World) {
    for (name, cluster) in &world.clusters {
        let orders = orders(world, name);
        cluster.orders.send_if_modified(|old| {
            let changed = **old != orders;
            if changed {
                *old = Arc::new(orders);
            }
            changed
        });
    }
}

fn orders(world: &World, cluster: &ClusterName) -> Orders {
    let mut works = BTreeMap::new();
    for record in world.records.instances.values() {
        let here = record.place.cluster() == Some(cluster);
        // A task's Pods belong to the Kubernetes Job of the whole job.
        if here && !publish::is_task(world, record) {
            let work = WorkName::Instance(record.id.clone());
            if let Some(order) = order(world, record, &work) {
                works.insert(work, order);
            }
        }
    }
    Orders {
        settled: !world.settling,
        works,
    }
}

fn order(world: &World, record: &InstanceRecord, work: &WorkName) -> Option<WorkOrder> {
    let manifest = publish::manifest_of(world, record)?;
    Some(WorkOrder {
        present: matches!(record.stage, Stage::Running | Stage::Draining),
        uid: record.pod.as_ref().map(|pod| pod.job_uid.clone()),
        manifest: Arc::new(manifest),
        counted: None,
        token: token(world, work),
    })
}

/// The token with which the Pods of a work join. The same each time: a create whose answer was lost is
/// made up for with the same Job.
pub(super) fn token(world: &World, work: &WorkName) -> String {
    JoinToken {
        ca_key_hash: world.ca_key_hash.clone(),
        id: format!("{POD}{}", hex::encode(work.to_string())),
        secret: pod_secret(&world.pod_key, work),
    }
    .to_string()
}
