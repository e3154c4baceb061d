//! Labels of nodes.

use std::collections::BTreeMap;

use berth_model::api::NodeLabels;
use berth_model::id::{FleetName, NodeName};
use berth_model::manifest::suggest::did_you_mean;
use berth_model::node::NodeRecord;

use super::Draft;
use super::step::{Fields, Step, Todo, table};
use crate::control::events::{Happened, OfNode};
use crate::control::labels_text;
use crate::control::world::World;

impl Draft<'_> {
    /// What is declared of nodes.
    pub(super) fn nodes(&mut self) {
        let wanted = self.wanted;
        for (name, labels) in &wanted.nodes {
            self.node(name, labels);
        }
    }

    fn node(&mut self, name: &NodeName, wanted: &NodeLabels) {
        let path = format!("node.{name}");
        let Some(record) = self.world.records.nodes.get(name) else {
            let known = self.world.records.nodes.keys();
            let known: Vec<&str> = known.map(NodeName::as_str).collect();
            let hint = did_you_mean(name.as_str(), &known);
            self.fail(
                &path,
                format!("there is no node {name}: join it first, or take the entry out{hint}"),
            );
            return;
        };
        if let Err(message) = wanted.check() {
            self.fail(&format!("{path}.labels"), message);
            return;
        }
        let mut adopts = false;
        for key in wanted.labels.keys() {
            let owner = record
                .declared
                .get(key)
                .filter(|_| record.labels.contains_key(key));
            let adopted = self.adopts(&format!("{path}.labels.{key}"), owner);
            adopts |= adopted && record.labels.contains_key(key);
        }
        let step = step(record, &self.wanted.fleet, Some(&wanted.labels));
        self.steps.push(Step { adopts, ..step });
    }
}

/// What a fleet makes of a node's labels: those that it wants are set, those that it set and does not want
/// any more go. Without an entry none is wanted.
pub(super) fn step(
    record: &NodeRecord,
    fleet: &FleetName,
    wanted: Option<&BTreeMap<String, String>>,
) -> Step {
    let none = BTreeMap::new();
    let labels = wanted.unwrap_or(&none);
    let mut next = record.clone();
    for key in mine(record, fleet) {
        if !labels.contains_key(&key) {
            next.labels.remove(&key);
            next.declared.remove(&key);
        }
    }
    for (key, value) in labels {
        next.labels.insert(key.clone(), value.clone());
        next.declared.insert(key.clone(), fleet.clone());
    }
    // Only what this is about: other labels are other people's business.
    let about = |key: &String| labels.contains_key(key) || mine(record, fleet).contains(key);
    let fields = |of: &NodeRecord| -> Fields {
        table("labels", of.labels.iter().filter(|(key, _)| about(key)))
    };
    Step {
        subject: format!("node/{}", record.name),
        old: Some(fields(record)),
        new: Some(fields(&next)),
        basis: format!("{:?}", record.declared),
        adopts: false,
        effects: Vec::new(),
        todo: Todo::Node(Box::new(next)),
    }
}

/// The keys of labels that a fleet declares on a node.
pub(super) fn mine(record: &NodeRecord, fleet: &FleetName) -> Vec<String> {
    let declared = record.declared.iter();
    declared
        .filter(|(key, owner)| *owner == fleet && record.labels.contains_key(*key))
        .map(|(key, _)| key.clone())
        .collect()
}

/// Keeps a node's new labels.
pub(super) fn keep(world: &mut World, record: NodeRecord) {
    let name = record.name.clone();
    let old = world.records.nodes.get(&name).map(|old| &old.labels);
    if old != Some(&record.labels) {
        let labels = labels_text(&record.all_labels());
        world.happened(&Happened::Node(OfNode::Labelled(&name, labels)));
    }
    world.records.nodes.put(name, record);
}
