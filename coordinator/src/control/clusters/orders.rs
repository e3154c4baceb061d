//! From the records to what each cluster shall run.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_model::id::ClusterName;
use berth_model::instance::{InstanceRecord, Stage};
use berth_model::job::JobRecord;
use berth_model::token::JoinToken;

use super::{Counted, Orders, WorkName, WorkOrder, pod_secret};
use crate::control::commands::tasks;
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
        if here && tasks::job_of(world, record).is_none() {
            let work = WorkName::Instance(record.id.clone());
            if let Some(order) = order(world, record, &work) {
                works.insert(work, order);
            }
        }
    }
    let jobs = world.records.jobs.values();
    for job in jobs.filter(|job| job.cluster.as_ref() == Some(cluster)) {
        let work = WorkName::Job {
            name: job.name.clone(),
            born: job.created.0,
        };
        if let Some(order) = of_job(world, job, &work) {
            works.insert(work, order);
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

/// A job that is over keeps its Job, for people to look at, until it is deleted.
fn of_job(world: &World, job: &JobRecord, work: &WorkName) -> Option<WorkOrder> {
    let key = (job.model.clone(), job.serial);
    let model = world.records.models.get(&key)?;
    Some(WorkOrder {
        present: !job.deleting,
        uid: job.uid.clone(),
        manifest: Arc::new(publish::without_golden(&model.manifest)),
        counted: Some(Counted {
            completions: job.completions(),
            parallelism: job.parallelism,
            retries: job.retries,
            deadline: job.deadline,
        }),
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
