//! By what else than their keys records are found.

use std::collections::{BTreeMap, BTreeSet};

use berth_model::id::{InstanceId, NodeName};
use berth_model::instance::{InstanceRecord, Stage};
use berth_model::node::NodeRecord;

use super::agent::AgentName;
use super::tracked::Index;

/// Nodes by the key of their certificate.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct NodeKeys(BTreeMap<String, BTreeSet<NodeName>>);

impl NodeKeys {
    /// Whose key this is (SHA-256 hex of SubjectPublicKeyInfo).
    pub(crate) fn node(&self, key_hash: &str) -> Option<&NodeName> {
        self.0.get(key_hash)?.first()
    }
}

impl Index<NodeName, NodeRecord> for NodeKeys {
    fn change(&mut self, key: &NodeName, before: Option<&NodeRecord>, after: Option<&NodeRecord>) {
        let hash = |record: &NodeRecord| record.key_hash.clone();
        replace(&mut self.0, key, before.map(hash), after.map(hash));
    }
}

/// Instances by whose business they are, by the key of their Pod, and those on their way out.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Whose {
    agents: BTreeMap<AgentName, BTreeSet<InstanceId>>,
    pods: BTreeMap<String, BTreeSet<InstanceId>>,
    leaving: BTreeMap<Stage, BTreeSet<InstanceId>>,
    /// Whose business has changed since somebody asked.
    touched: BTreeSet<AgentName>,
}

impl Whose {
    /// What an agent looks after, in the order of the records.
    pub(crate) fn of<'a>(
        &'a self,
        agent: &AgentName,
    ) -> impl Iterator<Item = &'a InstanceId> + use<'a> {
        self.agents.get(agent).into_iter().flatten()
    }

    /// The instance whose Pod has this key.
    pub(crate) fn pod(&self, key_hash: &str) -> Option<&InstanceId> {
        self.pods.get(key_hash)?.first()
    }

    /// The agents of whose instances one has changed since the last call.
    pub(crate) fn take_touched(&mut self) -> BTreeSet<AgentName> {
        std::mem::take(&mut self.touched)
    }

    /// What shall not run any more.
    pub(crate) fn leaving(&self) -> impl Iterator<Item = &InstanceId> {
        self.leaving.values().flatten()
    }
}

impl Index<InstanceId, InstanceRecord> for Whose {
    fn change(
        &mut self,
        id: &InstanceId,
        before: Option<&InstanceRecord>,
        after: Option<&InstanceRecord>,
    ) {
        let (was, is) = (before.map(AgentName::of), after.map(AgentName::of));
        self.touched.extend(was.iter().chain(&is).cloned());
        replace(&mut self.agents, id, was, is);
        let pod = |record: &InstanceRecord| record.pod.as_ref().map(|pod| pod.key_hash.clone());
        replace(
            &mut self.pods,
            id,
            before.and_then(pod),
            after.and_then(pod),
        );
        let stage = |record: &InstanceRecord| Some(record.stage).filter(|s| *s != Stage::Running);
        let (was, is) = (before.and_then(stage), after.and_then(stage));
        replace(&mut self.leaving, id, was, is);
    }
}

/// Moves a key from one group to another.
fn replace<G: Ord, K: Ord + Clone>(
    groups: &mut BTreeMap<G, BTreeSet<K>>,
    key: &K,
    before: Option<G>,
    after: Option<G>,
) {
    if before == after {
        return;
    }
    if let Some(group) = before
        && let Some(keys) = groups.get_mut(&group)
    {
        keys.remove(key);
        if keys.is_empty() {
            groups.remove(&group);
        }
    }
    if let Some(group) = after {
        groups.entry(group).or_default().insert(key.clone());
    }
}

#[cfg(test)]
mod tests {
    use berth_model::instance::{Phase, PodRecord};
    use berth_model::place::Place;
    use proptest::prelude::*;

    use super::*;
    use crate::control::testing::{instance, node_record};
    use crate::control::tracked::Tracked;

    /// One of a few nodes, with one of a few keys, or none.
    fn node() -> impl Strategy<Value = (usize, Option<usize>)> {
        (0..4_usize, proptest::option::of(0..4_usize))
    }

    /// One of a few instances: on which of a few places, with which Pod's key, in which stage; or none.
    type Change = (usize, Option<(usize, Option<usize>, Stage)>);

    fn change() -> impl Strategy<Value = Change> {
        let stages = [
            Stage::Running,
            Stage::Draining,
            Stage::Stopping,
            Stage::Lost,
        ];
        let stage = proptest::sample::select(stages.to_vec());
        let record = (0..3_usize, proptest::option::of(0..3_usize), stage);
        (0..5_usize, proptest::option::of(record))
    }

    fn record(number: usize, place: usize, pod: Option<usize>, stage: Stage) -> InstanceRecord {
        let mut record = instance(
            &format!("web.1.{number}.1"),
            &format!("n{place}"),
            Phase::Healthy,
        );
        if place == 2 {
            record.place = Place::Cluster("c".parse().unwrap());
        }
        record.pod = pod.map(|pod| PodRecord {
            key_hash: format!("k{pod}"),
            ..PodRecord::default()
        });
        record.stage = stage;
        record
    }

    proptest! {
        #[test]
        fn what_changed_bit_by_bit_is_what_is_made_of_the_whole(
            nodes in proptest::collection::vec(node(), 0..20),
            instances in proptest::collection::vec(change(), 0..30),
        ) {
            let mut tracked: Tracked<_, _, NodeKeys> = Tracked::clean(BTreeMap::new());
            for (number, key) in nodes {
                let mut record = node_record(&format!("n{number}"), true);
                match key {
                    None => drop(tracked.remove(&record.name)),
                    Some(key) => {
                        record.key_hash = format!("k{key}");
                        tracked.put(record.name.clone(), record);
                    }
                }
            }
            let fresh: Tracked<_, _, NodeKeys> = Tracked::clean(BTreeMap::clone(&tracked));
            prop_assert_eq!(tracked.index(), fresh.index());
            for record in tracked.values() {
                let found = tracked.index().node(&record.key_hash).unwrap();
                prop_assert_eq!(&tracked[found].key_hash, &record.key_hash);
            }

            let mut tracked: Tracked<_, _, Whose> = Tracked::clean(BTreeMap::new());
            for (number, change) in instances {
                match change {
                    None => drop(tracked.remove(&record(number, 0, None, Stage::Lost).id)),
                    Some((place, pod, stage)) => {
                        let record = record(number, place, pod, stage);
                        tracked.put(record.id.clone(), record);
                    }
                }
            }
            let touched = tracked.index_mut().take_touched();
            let mut fresh: Tracked<_, _, Whose> = Tracked::clean(BTreeMap::clone(&tracked));
            prop_assert!(fresh.index_mut().take_touched().is_subset(&touched));
            prop_assert_eq!(tracked.index(), fresh.index());
            let leaving = tracked.values().filter(|r| r.stage != Stage::Running).count();
            prop_assert_eq!(tracked.index().leaving().count(), leaving);
            for record in tracked.values() {
                prop_assert!(tracked.index().of(&AgentName::of(record)).any(|id| *id == record.id));
            }
        }
    }
}
