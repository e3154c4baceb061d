//! How many instances each revision shall have now.
//!
//! A new revision replaces the old ones instance by instance: on a spare place first; with none, one
//! old instance gives up its place, as long as no more than `max_unavailable` are missing. A new
//! instance must be healthy before the next one starts, so a revision that never gets healthy costs
//! at most `max_unavailable` of the old one's instances.

use std::collections::BTreeMap;

use berth_model::instance::Stage;
use berth_model::service::ServiceRecord;

use crate::view::View;
use crate::{Action, WaitReason, place};

/// Instances per revision number, after the rollout's next step; changes are in the plan's actions.
pub(crate) fn targets(view: &mut View<'_>, service: &ServiceRecord) -> BTreeMap<u32, u32> {
    let mut targets: BTreeMap<u32, u32> = service
        .revisions
        .iter()
        .map(|(number, r)| (*number, r.replicas))
        .collect();
    let Some(current) = service.current().map(|r| r.number) else {
        return targets;
    };
    if service.deleting {
        targets.values_mut().for_each(|n| *n = 0);
    } else {
        step(view, service, current, &mut targets);
    }
    for (number, replicas) in &targets {
        if service
            .revisions
            .get(number)
            .is_some_and(|r| r.replicas != *replicas)
        {
            view.act(Action::SetReplicas {
                service: service.name.clone(),
                revision: *number,
                replicas: *replicas,
            });
        }
    }
    targets
}

#[derive(Default)]
struct Count {
    /// Healthy instances by revision.
    by_revision: BTreeMap<u32, u32>,
    healthy_new: u32,
    live_new: u32,
    live_old: u32,
    healthy: u32,
    unhealthy_old: u32,
    leaving: u32,
}

fn count(view: &View<'_>, service: &ServiceRecord, current: u32) -> Count {
    let mut c = Count::default();
    for (id, placed) in view.of(&service.name) {
        let new = id.slot.revision == current;
        c.live_new += u32::from(new && placed.is_live());
        c.live_old += u32::from(!new && placed.is_live());
        c.healthy_new += u32::from(new && placed.is_healthy());
        c.healthy += u32::from(placed.is_healthy());
        *c.by_revision.entry(id.slot.revision).or_default() += u32::from(placed.is_healthy());
        c.unhealthy_old += u32::from(!new && placed.is_live() && !placed.is_healthy());
        c.leaving += u32::from(matches!(placed.stage, Stage::Draining | Stage::Stopping));
    }
    c
}

fn step(
    view: &mut View<'_>,
    service: &ServiceRecord,
    current: u32,
    targets: &mut BTreeMap<u32, u32>,
) {
    let wanted = service.replicas;
    let count = count(view, service, current);
    let new = targets.get(&current).copied().unwrap_or(0).min(wanted);
    targets.insert(current, new);
    let old = |targets: &BTreeMap<u32, u32>| -> u32 {
        targets
            .iter()
            .filter(|(n, _)| **n != current)
            .map(|(_, r)| *r)
            .sum()
    };
    // Healthy new instances take the place of old ones.
    let keep = wanted.saturating_sub(count.healthy_new.min(new));
    lower_old(
        &count.by_revision,
        targets,
        current,
        old(targets).saturating_sub(keep),
    );
    // Missing ones (a first deploy, a scale-up) are always of the new revision.
    let missing = wanted.saturating_sub(new + old(targets));
    let new = new + missing;
    targets.insert(current, new);
    if old(targets) == 0 || new >= wanted {
        return;
    }
    if count.healthy_new < new {
        let (healthy, instances) = (count.healthy_new, count.live_new);
        view.wait(
            &service.name,
            WaitReason::RolloutWaits {
                revision: current,
                healthy,
                instances,
            },
        );
        return;
    }
    // A place that is about to become free is waited for before another one is given up.
    let spare = place::choose(view, &service.name, current).is_ok();
    let may_lose_one =
        count.unhealthy_old > 0 || count.healthy > wanted.saturating_sub(service.max_unavailable);
    if spare {
        targets.insert(current, new + 1);
    } else if count.leaving == 0 && count.live_old <= old(targets) && may_lose_one {
        targets.insert(current, new + 1);
        lower_old(&count.by_revision, targets, current, 1);
    } else if count.leaving == 0 && !may_lose_one {
        let reason = WaitReason::RolloutNeedsPlace {
            revision: current,
            healthy: count.healthy,
            max_unavailable: service.max_unavailable,
        };
        view.wait(&service.name, reason);
    }
}

/// Takes `surplus` instances from the old revisions: first those that do not serve (unhealthy or
/// missing), then the oldest revision's.
fn lower_old(
    healthy: &BTreeMap<u32, u32>,
    targets: &mut BTreeMap<u32, u32>,
    current: u32,
    mut surplus: u32,
) {
    for serving_too in [false, true] {
        for (number, replicas) in targets.iter_mut().filter(|(n, _)| **n != current) {
            let serving = healthy.get(number).copied().unwrap_or(0);
            let available = if serving_too {
                *replicas
            } else {
                replicas.saturating_sub(serving)
            };
            let less = surplus.min(available);
            *replicas -= less;
            surplus -= less;
        }
    }
}
