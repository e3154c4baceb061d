//! What is to be told anew: which services' routes and which agents' desired sets a change may have touched.
//!
//! Records note their changes themselves ([`super::tracked`]); here they become the names of those who are to be
//! looked at, so that a change costs what it touches, not what the fleet has. In tests, whatever is told is compared
//! with what is made from everything.

use std::collections::{BTreeMap, BTreeSet};

use berth_model::id::ServiceName;
use berth_model::service::Revision;
use berth_plan::{WaitReason, Waiting};

use super::agent::AgentName;
use super::tracked::Reader;
use super::world::World;

/// Noted, but not told yet.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// Services whose routes may be others.
    pub(crate) services: BTreeSet<ServiceName>,
    /// Agents whose desired set may be another, whose session is new, or that may not be wanted any more.
    pub(crate) agents: BTreeSet<AgentName>,
    /// Nodes' agents that may not know yet who may come to their relays.
    pub(crate) strangers: BTreeSet<AgentName>,
}

/// Adds what the records' changes since the last call touch.
pub(crate) fn gather(world: &mut World) {
    let records = &mut world.records;
    let mut services = records.services.take_news(Reader::Publisher);
    let models = records.models.take_news(Reader::Publisher);
    if !models.is_empty() {
        let runs = |r: &Revision| models.contains(&(r.model.clone(), r.serial));
        let all = records.services.values();
        let those = all.filter(|s| s.revisions.values().any(runs));
        services.extend(those.map(|s| s.name.clone()));
    }
    let jobs = records.jobs.take_news(Reader::Publisher);
    let instances = records.instances.take_news(Reader::Publisher);
    let mut agents = records.instances.index_mut().take_touched();
    // What a service or a job has instances of is in their agents' sets.
    for name in services.iter().cloned().chain(jobs.iter().map(Into::into)) {
        agents.extend(records.instances_of(&name).map(AgentName::of));
    }
    services.extend(instances.into_iter().map(|id| id.slot.service));
    for node in records.nodes.take_news(Reader::Publisher) {
        let agent = AgentName::Node(node);
        let there = records.instances.index().of(&agent);
        services.extend(there.map(|id| id.slot.service.clone()));
        agents.insert(agent);
    }
    let pending = &mut world.live.pending;
    pending.services.append(&mut services);
    pending.agents.append(&mut agents);
    #[cfg(test)]
    {
        let left = world.records.untaken(Reader::Publisher);
        assert!(left.is_empty(), "kept for ever: {left:?}");
    }
}

/// Everything is to be looked at: the records were read anew, and what has changed before is not known.
pub(crate) fn everything(world: &mut World) {
    let (records, live) = (&world.records, &mut world.live);
    let services = records.services.keys().chain(world.table.services.keys());
    live.pending.services.extend(services.cloned());
    live.pending.agents.extend(live.agents.keys().cloned());
}

/// Why a service waits is told to its clients.
pub(crate) fn waits_otherwise(world: &mut World, before: &[Waiting]) {
    let (before, after) = (by_service(before), by_service(&world.waiting));
    let both = before.keys().chain(after.keys());
    let differ = both.filter(|name| before.get(*name) != after.get(*name));
    world.live.pending.services.extend(differ.copied().cloned());
}

fn by_service(waiting: &[Waiting]) -> BTreeMap<&ServiceName, Vec<&WaitReason>> {
    let mut out: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for one in waiting {
        out.entry(&one.service).or_default().push(&one.reason);
    }
    out
}
