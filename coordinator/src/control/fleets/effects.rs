//! Which instances stay where they would not be placed any more.
//!
//! Placing looks at labels; what runs stays where it is when they change, as nothing moves without cause.

use std::collections::{BTreeMap, BTreeSet};

use berth_model::api::{Effect, EffectKind};
use berth_model::id::{InstanceId, NodeName};
use berth_model::instance::{InstanceRecord, Stage};
use berth_model::node::NodeRecord;
use berth_model::pool::{POOL_LABEL, chosen};

use super::Draft;
use super::step::{Step, Todo};
use crate::control::commands::pools::select;
use crate::control::commands::services::Change;

pub(super) type Labels = BTreeMap<String, String>;

/// What a plan does to places and to instances, looked up once.
struct Moves<'a> {
    /// Nodes whose labels change, as they will be.
    nodes: BTreeMap<&'a NodeName, &'a NodeRecord>,
    /// Pools that go.
    pools: BTreeSet<&'a str>,
    /// Services and jobs whose instances are replaced or stopped anyway.
    moving: BTreeSet<&'a str>,
}

impl<'a> Moves<'a> {
    fn of(steps: &'a [Step]) -> Self {
        let mut moves = Self {
            nodes: BTreeMap::new(),
            pools: BTreeSet::new(),
            moving: BTreeSet::new(),
        };
        for step in steps.iter().filter(|step| step.changes()) {
            match &step.todo {
                Todo::Node(record) => {
                    moves.nodes.insert(&record.name, record);
                }
                Todo::DeletePool(name) => {
                    moves.pools.insert(name.as_str());
                }
                Todo::Service(s) if s.change == Change::Revise => {
                    moves.moving.insert(s.service.name.as_str());
                }
                Todo::DeleteService(name) => {
                    moves.moving.insert(name.as_str());
                }
                Todo::DeleteJob(name) => {
                    moves.moving.insert(name.as_str());
                }
                _ => {}
            }
        }
        moves
    }
}

impl Draft<'_> {
    /// Adds what stays to the steps that are the cause.
    pub(super) fn effects(&mut self) {
        let places =
            |s: &Step| matches!(s.todo, Todo::Node(_) | Todo::Pool(_) | Todo::DeletePool(_));
        if !self.steps.iter().any(|s| places(s) && s.changes()) {
            return;
        }
        let moves = Moves::of(&self.steps);
        let mut stay: BTreeMap<String, Vec<InstanceId>> = BTreeMap::new();
        for record in self.world.records.instances.values() {
            if let Some(cause) = self.left_outside(&moves, record) {
                stay.entry(cause).or_default().push(record.id.clone());
            }
        }
        for step in &mut self.steps {
            if let Some(instances) = stay.remove(&step.subject) {
                step.effects.push(stays(instances));
            }
        }
    }

    /// The labels of all nodes and clusters as they will be.
    pub(super) fn places(&self) -> Vec<Labels> {
        let moves = Moves::of(&self.steps);
        let nodes = self.world.records.nodes.values();
        let nodes = nodes.map(|node| moves.nodes.get(&node.name).unwrap_or(&node).place_labels());
        let clusters = self.world.clusters.values();
        nodes
            .chain(clusters.map(|c| c.info.labels.clone()))
            .collect()
    }

    /// What puts an instance outside of where it would be placed, if anything does.
    fn left_outside(&self, moves: &Moves<'_>, record: &InstanceRecord) -> Option<String> {
        let moving = moves.moving.contains(record.id.slot.service.as_str());
        if record.stage != Stage::Running || moving {
            return None;
        }
        let node = self.world.records.nodes.get(record.place.node()?)?;
        let changed = moves.nodes.get(&node.name);
        let wanted = self.labels_wanted(record)?;
        let pools = &self.world.records.pools;
        let before = select(wanted, |name| pools.get(name).map(|p| &p.labels));
        let after = select(wanted, |name| match self.wanted.pools.get(name) {
            Some(pool) => Some(&pool.labels),
            None if moves.pools.contains(name) => None,
            None => pools.get(name).map(|p| &p.labels),
        });
        let then = changed.unwrap_or(&node).place_labels();
        if !chosen(&before, &node.place_labels()) || chosen(&after, &then) {
            return None;
        }
        if changed.is_some() {
            return Some(format!("node/{}", node.name));
        }
        wanted.get(POOL_LABEL).map(|pool| format!("pool/{pool}"))
    }

    /// What the service's revision, or the job, of an instance asks of its place.
    fn labels_wanted(&self, record: &InstanceRecord) -> Option<&Labels> {
        let slot = &record.id.slot;
        let records = &self.world.records;
        match records.services.get(&slot.service) {
            Some(service) => service
                .revisions
                .get(&slot.revision)
                .map(|r| &r.node_labels),
            None => records
                .jobs
                .get(slot.service.as_str())
                .map(|j| &j.node_labels),
        }
    }
}

fn stays(instances: Vec<InstanceId>) -> Effect {
    let names: Vec<String> = instances.iter().map(ToString::to_string).collect();
    let (count, names) = (names.len(), names.join(", "));
    Effect {
        kind: EffectKind::Stay,
        count: u32::try_from(count).unwrap_or(u32::MAX),
        instances,
        message: format!(
            "{names} {} outside the pool then and stay{} until replaced or drained",
            if count == 1 { "is" } else { "are" },
            if count == 1 { "s" } else { "" }
        ),
    }
}
