//! What survives a change of tables: versions, the instances' counters, metrics, queues.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_model::id::{InstanceId, ServiceName};
use berth_model::route::{Order, Table};
use tokio::sync::Notify;

use super::{Endpoint, Instance, Routing, build};
use crate::config::GatewayConfig;
use crate::error::PublishError;
use crate::hash::Quick;
use crate::metrics::{ErrorCounts, RevisionMetrics, ServiceFigures};
use crate::queue::Queue;

/// How long a revision's counters are still shown after it left the table: several scrapes.
const REMEMBERED: Duration = Duration::from_secs(900);

/// What a service keeps from table to table.
pub(super) struct Kept {
    pub(super) queue: Arc<Queue>,
    pub(super) errors: Arc<ErrorCounts>,
}

struct Counted {
    metrics: Arc<RevisionMetrics>,
    left: Option<Instant>,
}

/// The publishing side's memory; under a lock that requests never take.
pub(crate) struct Registry {
    pub(super) shards: usize,
    pub(super) config: GatewayConfig,
    /// Told when something that control waits for has changed.
    pub(crate) changed: Arc<Notify>,
    table: Option<Arc<Table>>,
    sequence: u64,
    /// The versions by sequence number, from the acknowledged one on.
    versions: VecDeque<(u64, Order)>,
    next_key: u64,
    instances: HashMap<InstanceId, (Arc<Instance>, Endpoint)>,
    services: HashMap<ServiceName, Kept>,
    revisions: HashMap<(ServiceName, u32), Counted>,
}

impl Registry {
    pub(crate) fn new(shards: usize, config: &GatewayConfig) -> Self {
        Self {
            shards,
            config: config.clone(),
            changed: Arc::new(Notify::new()),
            table: None,
            sequence: 0,
            versions: VecDeque::new(),
            next_key: 0,
            instances: HashMap::new(),
            services: HashMap::new(),
            revisions: HashMap::new(),
        }
    }

    /// Makes the snapshot of a newer table; none if it is the one in force.
    pub(crate) fn accept(
        &mut self,
        table: Table,
        previous: &Routing,
    ) -> Result<Option<Arc<Routing>>, PublishError> {
        if let Some(current) = &self.table {
            if table.version < current.version {
                return Err(PublishError::Older {
                    offered: table.version,
                    current: current.version,
                });
            }
            if table.version == current.version {
                if table == **current {
                    return Ok(None);
                }
                return Err(PublishError::Conflict(table.version));
            }
        }
        self.sequence += 1;
        self.versions.push_back((self.sequence, table.version));
        let old = self.table.take();
        let mut routing = Routing {
            sequence: self.sequence,
            services: HashMap::with_capacity_and_hasher(table.services.len(), Quick),
        };
        for (name, route) in &table.services {
            let unchanged = old
                .as_ref()
                .filter(|old| old.services.get(name) == Some(route))
                .and_then(|_| previous.services.get(name));
            let service = match unchanged {
                Some(service) => Arc::clone(service),
                None => Arc::new(build::service(self, name, route)),
            };
            routing.services.insert(name.clone(), service);
        }
        self.retire(&table, Instant::now());
        self.table = Some(Arc::new(table));
        Ok(Some(Arc::new(routing)))
    }

    fn retire(&mut self, table: &Table, now: Instant) {
        let revision = |service: &ServiceName, number: u32| {
            let service = table.services.get(service);
            service.and_then(|s| s.revisions.get(&number))
        };
        self.instances.retain(|id, (instance, _)| {
            let slot = &id.slot;
            let there = revision(&slot.service, slot.revision).is_some_and(|r| r.has(id));
            instance.set_retired(!there);
            there || instance.in_flight() > 0 || Arc::strong_count(instance) > 1
        });
        self.revisions.retain(|(service, number), counted| {
            if revision(service, *number).is_some() {
                counted.left = None;
                return true;
            }
            let left = *counted.left.get_or_insert(now);
            now.duration_since(left) < REMEMBERED || Arc::strong_count(&counted.metrics) > 1
        });
        self.services
            .retain(|name, _| table.services.contains_key(name));
    }

    /// What is known of an instance, and how it is reached: in the same words as before if that has not changed.
    pub(super) fn instance(
        &mut self,
        id: &InstanceId,
        endpoint: Endpoint,
    ) -> (Arc<Instance>, Endpoint) {
        if let Some((known, at)) = self.instances.get_mut(id) {
            if *at != endpoint {
                // Restarted elsewhere: what failed there says nothing about here.
                *at = endpoint;
                known.succeeded();
            }
            return (Arc::clone(known), at.clone());
        }
        self.next_key += 1;
        let made = Arc::new(Instance::new(
            id.clone(),
            self.next_key,
            Arc::clone(&self.changed),
        ));
        let entry = (Arc::clone(&made), endpoint.clone());
        self.instances.insert(id.clone(), entry);
        (made, endpoint)
    }

    pub(super) fn kept(&mut self, service: &ServiceName) -> &Kept {
        self.services
            .entry(service.clone())
            .or_insert_with(|| Kept {
                queue: Arc::default(),
                errors: Arc::default(),
            })
    }

    pub(super) fn revision(&mut self, service: &ServiceName, number: u32) -> Arc<RevisionMetrics> {
        let shards = self.shards;
        let counted = self
            .revisions
            .entry((service.clone(), number))
            .or_insert_with(|| Counted {
                metrics: Arc::new(RevisionMetrics::new(service, number, shards)),
                left: None,
            });
        Arc::clone(&counted.metrics)
    }

    /// The table in force.
    pub(crate) fn table(&self) -> Option<Arc<Table>> {
        self.table.clone()
    }

    /// The version of the newest table that every thread has reached, given the smallest sequence
    /// number that a thread has seen.
    pub(crate) fn acknowledged(&mut self, seen: u64) -> Option<Order> {
        while self.versions.get(1).is_some_and(|(at, _)| *at <= seen) {
            self.versions.pop_front();
        }
        let (at, version) = self.versions.front()?;
        (*at <= seen).then_some(*version)
    }

    /// Instances with requests in flight, also those that have left the table.
    pub(crate) fn in_flight(&self) -> Vec<(InstanceId, u64)> {
        let mut counts: Vec<_> = self
            .instances
            .values()
            .map(|(instance, _)| (instance.id.clone(), instance.in_flight()))
            .filter(|(_, count)| *count > 0)
            .collect();
        counts.sort_unstable();
        counts
    }

    /// All revisions' metrics, in order.
    pub(crate) fn revisions(&self) -> Vec<Arc<RevisionMetrics>> {
        let mut all: Vec<_> = self.revisions.iter().collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all.into_iter()
            .map(|(_, c)| Arc::clone(&c.metrics))
            .collect()
    }

    /// All services' own answers and waiting requests, in order.
    pub(crate) fn services(&self) -> Vec<ServiceFigures> {
        let mut all: Vec<_> = self
            .services
            .iter()
            .map(|(name, kept)| ServiceFigures {
                name: name.clone(),
                errors: Arc::clone(&kept.errors),
                queued: kept.queue.len(),
                away: kept.queue.away(),
            })
            .collect();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Lets every service's first waiting request choose anew.
    pub(crate) fn wake_queues(&self) {
        for kept in self.services.values() {
            kept.queue.place_free();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(generation: u64) -> Table {
        let mut table = Table::default();
        table.version.generation = generation;
        table
    }

    #[test]
    fn older_and_conflicting_tables_are_refused() {
        let mut registry = Registry::new(1, &GatewayConfig::default());
        let empty = Routing::empty();
        assert!(registry.accept(table(2), &empty).unwrap().is_some());
        assert!(registry.accept(table(2), &empty).unwrap().is_none());
        assert!(matches!(
            registry.accept(table(1), &empty),
            Err(PublishError::Older { .. })
        ));
        let mut other = table(2);
        other
            .services
            .insert("a".parse().unwrap(), Default::default());
        assert!(matches!(
            registry.accept(other, &empty),
            Err(PublishError::Conflict(_))
        ));
        let mut epoch = table(0);
        epoch.version.epoch = 1;
        assert!(registry.accept(epoch, &empty).unwrap().is_some());
    }

    #[test]
    fn acknowledged_is_the_newest_that_all_have_seen() {
        let mut registry = Registry::new(1, &GatewayConfig::default());
        let empty = Routing::empty();
        assert_eq!(registry.acknowledged(0), None);
        for generation in [5, 6, 9] {
            registry.accept(table(generation), &empty).unwrap();
        }
        assert_eq!(registry.acknowledged(0), None);
        assert_eq!(registry.acknowledged(1), Some(table(5).version));
        assert_eq!(registry.acknowledged(2), Some(table(6).version));
        assert_eq!(registry.acknowledged(3), Some(table(9).version));
        assert_eq!(registry.acknowledged(3), Some(table(9).version));
    }
}
