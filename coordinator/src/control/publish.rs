//! What is told to gateways and agents once it is committed.

use std::sync::Arc;

use berth_model::id::InstanceId;
use berth_model::instance::{InstanceRecord, InstanceSpec, Intent, Phase, Stage};
use berth_model::manifest::Manifest;
use berth_model::route::Table;
use tokio::sync::watch;

use super::agent::AgentName;
use super::commands::{agents, tasks};
use super::live::Sent;
use super::routes;
use super::world::World;
use super::{ConnectionId, ToAgent};

/// Publishes a new table if it says anything new, and notes which instances are out of it. Answers
/// whether that is news for the planner. While settling none is published: what gateways have is newer
/// than what was restored.
pub(crate) fn table(world: &mut World, tables: &watch::Sender<Arc<Table>>) -> bool {
    if world.settling {
        return false;
    }
    let services = std::mem::take(&mut world.live.pending.services);
    let routes = services.into_iter().map(|name| {
        let route = routes::of(world, &name);
        (name, route)
    });
    let differ = |(name, route): &(_, Option<_>)| world.table.services.get(name) != route.as_ref();
    let changed: Vec<_> = routes.filter(differ).collect();
    let first = world.table.version.term != world.term || world.table.version.epoch != world.epoch;
    if first || !changed.is_empty() {
        let mut services = world.table.services.clone();
        for (name, route) in changed {
            match route {
                Some(route) => drop(services.insert(name, route)),
                None => drop(services.remove(&name)),
            }
        }
        world.table = Arc::new(Table {
            version: world.order_after(Some(world.table.version)),
            services,
        });
        tables.send_replace(Arc::clone(&world.table));
    }
    #[cfg(test)]
    assert_eq!(
        world.table.services,
        routes::build(world),
        "not every change was noted"
    );
    note_out(world)
}

/// Every instance on its way out is absent from the table now published; the first such table is what
/// gateways must have acknowledged before it is stopped.
fn note_out(world: &mut World) -> bool {
    let (records, live) = (&world.records, &mut world.live);
    let leaving = |id: &InstanceId| {
        let record = records.instances.get(id);
        record.is_some_and(|r| r.stage != Stage::Running)
    };
    live.out_since.retain(|id, _| leaving(id));
    live.draining_since.retain(|id, _| leaving(id));
    let mut news = false;
    for id in records.instances.index().leaving() {
        if !live.out_since.contains_key(id) {
            live.out_since.insert(id.clone(), world.table.version);
            // After a restart: it drains at least since then.
            live.draining_since
                .entry(id.clone())
                .or_insert(world.started);
            news = true;
        }
    }
    news
}

/// Ends the sessions of nodes that were removed and of Pods whose instance is gone, and forgets what was live of them.
pub(crate) fn removed_nodes(world: &mut World) {
    let gone = world.live.pending.agents.iter();
    let gone: Vec<AgentName> = gone
        .filter(|name| agents::check_known(world, name).is_err())
        .cloned()
        .collect();
    for name in gone {
        world.live.pending.agents.remove(&name);
        let live = world.live.agents.remove(&name);
        if let Some(session) = live.and_then(|live| live.session) {
            let why = agents::removed(&name).detail;
            let refusal = ToAgent::Refuse(agents::REMOVED.to_owned(), why);
            world.live.connections.remove(&session.connection);
            // One that does not keep up loses its connection, and is told when it is back.
            let _ = session.outbox.try_send(refusal);
        }
    }
}

/// Sends every connected agent whose instances may have changed its desired set if that has. While settling none is sent: a
/// set would stop what the restored records do not know yet. Answers with the sessions that could not
/// take it, which are over.
pub(crate) fn desired_sets(world: &mut World) -> Vec<ConnectionId> {
    if world.settling {
        return Vec::new();
    }
    let agents = std::mem::take(&mut world.live.pending.agents);
    let mut over = Vec::new();
    for agent in agents {
        let set = content(world, &agent);
        over.extend(send(world, &agent, set));
    }
    #[cfg(test)]
    for (agent, live) in &world.live.agents {
        let current = live.session.as_ref().is_none_or(|session| session.current);
        assert!(current, "{agent} was not told");
        if let (Some(_), Some(sent)) = (&live.session, &live.sent) {
            assert_eq!(sent.content, everything(world, agent), "{agent}");
        }
    }
    over
}

/// What an agent shall have.
fn content(world: &World, agent: &AgentName) -> Vec<(InstanceId, Intent)> {
    let records = &world.records.instances;
    let mine = records.index().of(agent).filter_map(|id| records.get(id));
    mine.filter(|record| is_known(world, record))
        .map(|record| (record.id.clone(), intent(record)))
        .collect()
}

/// The same, looked for in everything there is.
#[cfg(test)]
fn everything(world: &World, agent: &AgentName) -> Vec<(InstanceId, Intent)> {
    let all = world.records.instances.values();
    let mine = all.filter(|record| agent.has(record) && is_known(world, record));
    mine.map(|record| (record.id.clone(), intent(record)))
        .collect()
}

fn is_known(world: &World, record: &InstanceRecord) -> bool {
    spec(world, record).is_some() || tasks::job_of(world, record).is_some()
}

fn send(
    world: &mut World,
    agent: &AgentName,
    set: Vec<(InstanceId, Intent)>,
) -> Option<ConnectionId> {
    let live = world.live.agents.get(agent)?;
    let session = live.session.as_ref()?;
    let same = live.sent.as_ref().is_some_and(|s| s.content == set);
    if same && session.current {
        return None;
    }
    // The same content keeps its order, so that a reconnect is no news for the agent.
    let last = live.sent.as_ref().map(|s| s.order);
    let order = match last {
        Some(last) if same => last,
        last => world.order_after(last),
    };
    let records = set
        .iter()
        .filter_map(|(id, _)| world.records.instances.get(id));
    let instances: Vec<InstanceSpec> = records.filter_map(|r| build(world, r)).collect();
    let sent = session
        .outbox
        .try_send(ToAgent::Desired { order, instances });
    let connection = session.connection;
    let live = world.live.agents.get_mut(agent)?;
    live.sent = Some(Sent {
        order,
        content: set,
    });
    live.session.as_mut()?.current = true;
    // An agent that does not keep up with its outbox is better off connecting anew.
    sent.is_err().then_some(connection)
}

/// Recorded requests may be large, and no agent needs them to run a module.
pub(crate) fn without_golden(manifest: &Manifest) -> Manifest {
    Manifest {
        golden: Vec::new(),
        ..manifest.clone()
    }
}

/// The manifest of what an instance of a service runs.
pub(crate) fn manifest_of(world: &World, record: &InstanceRecord) -> Option<Manifest> {
    let (_, model) = spec(world, record)?;
    Some(without_golden(&model.manifest))
}

pub(crate) fn intent(record: &InstanceRecord) -> Intent {
    match record.stage {
        Stage::Running => Intent::Run,
        // Its place counts as free once it has stopped: it must not start again.
        Stage::Draining if record.status.phase != Phase::Stopped => Intent::Run,
        Stage::Draining | Stage::Stopping | Stage::Lost => Intent::Stop,
    }
}

/// What an instance runs; none for what is left of a service or revision that is gone, which its agent
/// may drop at once.
fn spec<'a>(
    world: &'a World,
    record: &InstanceRecord,
) -> Option<(
    &'a berth_model::service::Revision,
    &'a berth_model::service::ModelVersion,
)> {
    let service = world.records.services.get(&record.id.slot.service)?;
    let revision = service.revisions.get(&record.id.slot.revision)?;
    Some((revision, world.model_of(revision)?))
}

pub(crate) fn build(world: &World, record: &InstanceRecord) -> Option<InstanceSpec> {
    if let Some(job) = tasks::job_of(world, record) {
        return tasks::spec(world, job, record);
    }
    let (revision, model) = spec(world, record)?;
    Some(InstanceSpec {
        id: record.id.clone(),
        digest: model.digest,
        blob: model.blob,
        blob_bytes: model.blob_bytes,
        version: model.version.clone(),
        serial: model.serial,
        runtime: revision.runtime,
        manifest: without_golden(&model.manifest),
        env: revision.env.clone(),
        intent: intent(record),
        task: None,
        gpus: record.gpus.clone(),
    })
}
