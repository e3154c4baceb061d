//! What the planner is told: what has changed since the last time, in its words.
//!
//! Records note their changes themselves ([`super::tracked`]). Beside them the planner depends on what is live:
//! sessions, whose changes `live` notes; and of instances on their way out, of which there are few and which
//! are told anew each time. Gateways and clusters are few, too.

use std::collections::BTreeSet;

use berth_model::id::{InstanceId, JobName, NodeName, ServiceName};
use berth_model::instance::{Phase, Stage};
use berth_plan::{Change, Planner, Session};

use super::agent::AgentName;
use super::observe;
use super::tracked::{Reader, Tracked};
use super::world::World;

/// Tells the world's planner.
pub(crate) fn feed(world: &mut World) {
    let mut planner = std::mem::take(&mut world.planner);
    planner.observe(Change::Started(world.started));
    planner.observe(Change::Settling(world.settling));
    planner.observe(Change::Settings(world.settings.clone()));
    wanted(world, &mut planner);
    for (slot, attempt) in news(&mut world.records.attempts) {
        planner.observe(Change::Attempt(slot, attempt));
    }
    nodes(world, &mut planner);
    for (name, cluster) in &world.clusters {
        let seen = observe::cluster(cluster);
        planner.observe(Change::Cluster(name.clone(), Some(seen)));
    }
    instances(world, &mut planner);
    gateways(world, &mut planner);
    world.planner = planner;
    #[cfg(test)]
    {
        let left = world.records.untaken(Reader::Planner);
        assert!(left.is_empty(), "kept for ever: {left:?}");
    }
}

fn news<K: Ord + Clone, V: PartialEq + Clone>(table: &mut Tracked<K, V>) -> Vec<(K, Option<V>)> {
    let keys = table.take_news(Reader::Planner).into_iter();
    keys.map(|key| {
        let value = table.get(&key).cloned();
        (key, value)
    })
    .collect()
}

fn wanted(world: &mut World, planner: &mut Planner) {
    let mut services: BTreeSet<ServiceName> = world.records.services.take_news(Reader::Planner);
    let mut jobs: BTreeSet<JobName> = world.records.jobs.take_news(Reader::Planner);
    if !world.records.pools.take_news(Reader::Planner).is_empty() {
        // A pool's name may mean other labels now, to whatever names it.
        services.extend(world.records.services.keys().cloned());
        jobs.extend(world.records.jobs.keys().cloned());
    }
    for name in services {
        let service = world.records.services.get(&name).cloned();
        let revisions = service.iter().flat_map(|s| s.revisions.values());
        let needs = revisions.map(|r| (r.number, observe::needs(world, r)));
        replace_needs(planner, &name, needs.collect());
        planner.observe(Change::Service(name, service));
    }
    for name in jobs {
        let job = world.records.jobs.get(&name);
        let needs = job.map(|job| (job.revision, observe::task_needs(world, job)));
        replace_needs(planner, &(&name).into(), needs.into_iter().collect());
        let wanted = job.map(|job| observe::job(world, job));
        // When its deadline is over is noted once: whoever sets the clock does not move it.
        let due = wanted
            .as_ref()
            .filter(|job| !job.over)
            .and_then(|job| job.due);
        match due {
            Some(due) => drop(world.live.job_dues.insert(name.clone(), due)),
            None => drop(world.live.job_dues.remove(&name)),
        }
        planner.observe(Change::Job(name, wanted));
    }
}

fn replace_needs(
    planner: &mut Planner,
    service: &ServiceName,
    needs: Vec<(u32, berth_plan::Needs)>,
) {
    let known: Vec<u32> = planner.revisions(service).collect();
    for number in known {
        if !needs.iter().any(|(n, _)| *n == number) {
            planner.observe(Change::Needs((service.clone(), number), None));
        }
    }
    for (number, needs) in needs {
        planner.observe(Change::Needs((service.clone(), number), Some(needs)));
    }
}

fn nodes(world: &mut World, planner: &mut Planner) {
    let mut names: BTreeSet<NodeName> = world.records.nodes.take_news(Reader::Planner);
    names.append(&mut world.live.touched);
    // How much of a drain's deadline is left is counted beside the record.
    names.extend(planner.draining().cloned());
    for name in names {
        let record = world.records.nodes.get(&name);
        let seen = record.map(|record| observe::node(world, record));
        let there = seen.as_ref().map(|seen| seen.session == Session::Connected);
        let live = world.live.agents.get_mut(&AgentName::Node(name.clone()));
        if let Some(live) = live {
            live.there = there.unwrap_or_default();
        }
        planner.observe(Change::Node(name, seen));
    }
}

fn instances(world: &mut World, planner: &mut Planner) {
    let mut ids: BTreeSet<InstanceId> = world.records.instances.take_news(Reader::Planner);
    ids.extend(planner.leaving().cloned());
    let records = &world.records.instances;
    // Whether anything is left of what has stopped in a cluster is not in its record.
    let stopped = |id: &&InstanceId| {
        let record = records.get(*id);
        record.is_some_and(|r| r.stage != Stage::Running || r.status.phase == Phase::Stopped)
    };
    ids.extend(planner.in_clusters().filter(stopped).cloned());
    for id in ids {
        let record = world.records.instances.get(&id);
        let seen = record.map(|record| observe::instance(world, record));
        planner.observe(Change::Instance(id, seen));
    }
}

fn gateways(world: &World, planner: &mut Planner) {
    let records = world.records.gateways.values();
    let there = records.filter(|record| observe::is_used(record));
    let there: Vec<_> = there.map(|record| record.name.clone()).collect();
    let gone: Vec<_> = planner.gateways().cloned().collect();
    for name in gone.into_iter().filter(|name| !there.contains(name)) {
        planner.observe(Change::Gateway(name, None));
    }
    for name in there {
        let seen = observe::gateway(world, &name);
        planner.observe(Change::Gateway(name, Some(seen)));
    }
}

/// Everything that the planner should know, looked at anew.
#[cfg(test)]
pub(crate) fn everything(world: &World) -> (berth_plan::Desired, berth_plan::Observed) {
    let records = &world.records;
    let services = records.services.values();
    let revisions = services.flat_map(|s| s.revisions.values().map(move |r| (&s.name, r)));
    let needs = revisions.map(|(s, r)| ((s.clone(), r.number), observe::needs(world, r)));
    let jobs = records.jobs.values();
    let tasks = jobs.clone().map(|job| {
        (
            (job.service(), job.revision),
            observe::task_needs(world, job),
        )
    });
    let wanted = |job| observe::job(world, job);
    let desired = berth_plan::Desired {
        services: std::collections::BTreeMap::clone(&records.services),
        needs: needs.chain(tasks).collect(),
        jobs: jobs.map(|job| (job.name.clone(), wanted(job))).collect(),
    };
    let nodes = records.nodes.values();
    let instances = records.instances.values();
    let clusters = world.clusters.iter();
    let gateways = records.gateways.values().filter(|g| observe::is_used(g));
    let observed = berth_plan::Observed {
        nodes: nodes
            .map(|n| (n.name.clone(), observe::node(world, n)))
            .collect(),
        clusters: clusters
            .map(|(name, c)| (name.clone(), observe::cluster(c)))
            .collect(),
        instances: instances
            .map(|i| (i.id.clone(), observe::instance(world, i)))
            .collect(),
        attempts: std::collections::BTreeMap::clone(&records.attempts),
        gateways: gateways
            .map(|g| (g.name.clone(), observe::gateway(world, &g.name)))
            .collect(),
        started: world.started,
        settling: world.settling,
        settings: world.settings.clone(),
    };
    (desired, observed)
}
