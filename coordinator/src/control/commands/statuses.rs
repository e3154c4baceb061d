//! What agents say of their instances.

use berth_model::id::{InstanceId, NodeName};
use berth_model::instance::{InstanceRecord, InstanceStatus, Phase, Reason, Stage};

use super::tasks;
use crate::control::agent::AgentName;
use crate::control::clusters;
use crate::control::events::Happened;
use crate::control::world::World;

/// Most last lines that are kept, and most bytes of each: an agent cannot fill the store.
const MAX_LINES: usize = 20;
const MAX_LINE_BYTES: usize = 2_048;
/// Most bytes of a whole status.
const MAX_BYTES: usize = 128 * 1024;

/// Takes a status into the instance's record, with the events that its change means. Statuses of
/// instances that the agent should not have only raise counters.
pub(crate) fn take(world: &mut World, agent: &AgentName, status: InstanceStatus) {
    let status = bounded(status);
    let record = world.records.instances.get(&status.id);
    let Some(record) = record.filter(|r| agent.has(r)) else {
        raise_counters(world, &status.id);
        tasks::late(world, &status);
        return;
    };
    if record.status == status {
        return;
    }
    let record = InstanceRecord {
        status: status.clone(),
        ..record.clone()
    };
    let before = world
        .records
        .instances
        .get(&status.id)
        .map(|r| r.status.clone());
    let stage = record.stage;
    world
        .records
        .instances
        .put(status.id.clone(), record.clone());
    if let Some(before) = before {
        if status.phase == Phase::Stopped && before.phase != Phase::Stopped {
            clusters::note_end(world, &record, &before);
        }
        tell(world, &before, &status);
        if status.phase == Phase::Stopped && before.phase != Phase::Stopped {
            tasks::ended(world, stage, &status);
        }
    }
}

fn tell(world: &mut World, before: &InstanceStatus, now: &InstanceStatus) {
    let entered = |phase: Phase| now.phase == phase && before.phase != phase;
    if entered(Phase::Backoff) {
        world.happened(&Happened::InstanceFailed(now));
    }
    // A start after a first one that is no counted restart follows a lost shim or a rebooted machine.
    if now.restarts > before.restarts || (before.start > 0 && now.start > before.start) {
        world.happened(&Happened::InstanceRestarted(now));
    }
    if entered(Phase::Healthy) {
        world.happened(&Happened::InstanceHealthy(now));
    }
    if entered(Phase::Unhealthy) {
        world.happened(&Happened::InstanceUnhealthy(now));
    }
    if entered(Phase::Stopped) {
        world.happened(&Happened::InstanceStopped(now));
    }
}

/// An identity that is in use somewhere is never given again, also when the store was restored from
/// a time before it was.
pub(crate) fn raise_counters(world: &mut World, id: &InstanceId) {
    let slot = &id.slot;
    let records = &mut world.records;
    let service = records.services.get(&slot.service);
    let job = records.jobs.get(slot.service.as_str());
    let known = service.is_some_and(|s| s.revisions.contains_key(&slot.revision))
        || job.is_some_and(|j| j.revision == slot.revision);
    if known {
        let highest = records.attempts.get(slot).copied().unwrap_or(0);
        records.attempts.put(slot.clone(), highest.max(id.attempt));
    } else {
        let highest = records.revisions.get(&slot.service).copied().unwrap_or(0);
        if slot.revision > highest {
            records.revisions.put(slot.service.clone(), slot.revision);
        }
    }
}

/// After a restore: takes over what runs and what the restored records do not know, if the service
/// and revision exist and nothing newer holds the place.
pub(crate) fn adopt(world: &mut World, node: &NodeName, status: &InstanceStatus) {
    let id = &status.id;
    let ending = matches!(status.phase, Phase::Stopping | Phase::Stopped);
    if ending || world.records.instances.contains_key(id) || !runs_what_is_wanted(world, status) {
        return;
    }
    let same_slot = world.records.instances_of(&id.slot.service);
    let same_slot: Vec<InstanceId> = same_slot
        .filter(|r| r.id.slot == id.slot && r.stage == Stage::Running)
        .map(|r| r.id.clone())
        .collect();
    if same_slot.iter().any(|other| other.attempt > id.attempt) {
        return;
    }
    for older in &same_slot {
        world.records.instances.remove(older);
    }
    let record = InstanceRecord {
        id: id.clone(),
        place: node.clone().into(),
        pod: None,
        reserved: world.records.asked_for(id),
        gpus: status.gpus.clone(),
        stage: Stage::Running,
        status: bounded(status.clone()),
        created: world.wall,
    };
    world.records.instances.put(id.clone(), record);
    raise_counters(world, id);
    world.happened(&Happened::InstanceAdopted(id, &node.clone().into()));
}

/// A revision's number may mean something else since the restore; its digest cannot.
fn runs_what_is_wanted(world: &World, status: &InstanceStatus) -> bool {
    let slot = &status.id.slot;
    if let Some(job) = world.records.jobs.get(slot.service.as_str()) {
        return job.owns(&status.id)
            && job.wants(slot.ordinal)
            && status.digest == Some(job.digest);
    }
    let service = world.records.services.get(&slot.service);
    let revision = service.and_then(|s| s.revisions.get(&slot.revision));
    revision.is_some_and(|r| status.digest == Some(r.digest))
}

fn bounded(mut status: InstanceStatus) -> InstanceStatus {
    let surplus = status.last_lines.len().saturating_sub(MAX_LINES);
    status.last_lines.drain(..surplus);
    for line in &mut status.last_lines {
        if line.len() > MAX_LINE_BYTES {
            line.truncate(line.floor_char_boundary(MAX_LINE_BYTES));
            line.push('…');
        }
    }
    let bytes = serde_json::to_vec(&status).map_or(usize::MAX, |v| v.len());
    if bytes > MAX_BYTES {
        status.last_lines.clear();
        status.reason = Some(Reason::Node {
            error: format!("its agent reported {bytes} bytes, too many to keep"),
        });
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::{status, world_with_service};

    fn kinds(world: &World) -> Vec<&str> {
        world.fresh.iter().map(|e| e.kind.as_str()).collect()
    }

    fn report(world: &mut World, status: InstanceStatus) {
        world.fresh.clear();
        take(world, &AgentName::Node("n1".parse().unwrap()), status);
    }

    #[test]
    fn a_restart_is_told_with_its_reason_even_if_the_pause_was_missed() {
        let mut w = world_with_service();
        let healthy = status("web.1.0.1", Phase::Healthy);
        report(&mut w, healthy.clone());
        assert!(kinds(&w).is_empty());
        let again = InstanceStatus {
            start: 2,
            restarts: 1,
            reason: Some(Reason::Signaled {
                process: "module".into(),
                signal: 9,
            }),
            ..healthy.clone()
        };
        report(&mut w, again.clone());
        assert_eq!(kinds(&w), ["instance-restarted"]);
        assert!(w.fresh[0].message.contains("ended by signal 9"));
        let waiting = InstanceStatus {
            phase: Phase::Backoff,
            ..again.clone()
        };
        report(&mut w, waiting);
        assert_eq!(kinds(&w), ["instance-failed"]);
        report(&mut w, again);
        assert_eq!(kinds(&w), ["instance-healthy"]);
    }

    #[test]
    fn only_a_nodes_own_instances_are_taken() {
        let mut w = world_with_service();
        let mut foreign = status("web.1.0.1", Phase::Backoff);
        foreign.restarts = 7;
        w.fresh.clear();
        take(&mut w, &AgentName::Node("n2".parse().unwrap()), foreign);
        let id: InstanceId = "web.1.0.1".parse().unwrap();
        assert_eq!(w.records.instances[&id].status.phase, Phase::Healthy);
        // What is in use somewhere is never given again.
        report(&mut w, status("web.1.1.9", Phase::Healthy));
        report(&mut w, status("web.7.0.1", Phase::Healthy));
        let slot = "web.1.1.9".parse::<InstanceId>().unwrap().slot;
        assert_eq!(w.records.attempts[&slot], 9);
        assert_eq!(w.records.revisions["web"], 7);
    }

    #[test]
    fn what_is_adopted_keeps_its_gpus_and_its_room() {
        let mut w = world_with_service();
        let key = w.records.models.keys().next().unwrap().clone();
        let mut model = w.records.models[&key].clone();
        model.manifest.resources.memory_bytes = 1 << 30;
        w.records.models.put(key, model);
        let digest = w.records.services["web"].revisions[&1].digest;
        let mut found = status("web.1.1.1", Phase::Healthy);
        found.digest = Some(digest);
        found.gpus = vec!["GPU-7".to_owned()];
        adopt(&mut w, &"n1".parse().unwrap(), &found);
        let record = &w.records.instances[&found.id];
        assert_eq!(record.gpus, ["GPU-7"]);
        assert_eq!(record.reserved.unwrap().memory_bytes, 1 << 30);
    }

    #[test]
    fn what_an_agent_says_cannot_fill_the_store() {
        let mut w = world_with_service();
        let mut long = status("web.1.0.1", Phase::Backoff);
        long.last_lines = vec!["ä".repeat(5_000); 100];
        report(&mut w, long.clone());
        let id: InstanceId = "web.1.0.1".parse().unwrap();
        let kept = w.records.instances[&id].status.clone();
        assert_eq!(kept.last_lines.len(), MAX_LINES);
        assert!(kept.last_lines[0].len() <= MAX_LINE_BYTES + 3);
        long.reason = Some(Reason::Package {
            error: "x".repeat(1 << 20),
        });
        report(&mut w, long);
        let size = serde_json::to_vec(&w.records.instances[&id]).unwrap().len();
        assert!(size < MAX_BYTES);
    }
}
