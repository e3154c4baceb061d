//! Kubernetes clusters: an instance is one Job with one Pod that nothing restarts, so that Berth replaces
//! it when it has ended. A cluster out of reach is held: nothing is known of it, so nothing is taken for lost.

use std::time::Duration;

use berth_model::id::{ClusterName, InstanceId, ServiceName};
use berth_model::instance::{Phase, Stage};
use berth_model::place::Place;

use crate::jobs;
use crate::view::View;
use crate::{InstanceSeen, WaitReason};

/// The pause before the first replacement; it doubles with every further failure in a row.
const FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(300);

pub(crate) fn plan(view: &mut View<'_>) {
    hold(view);
    let observed = view.observed;
    let here = view.state.in_clusters.iter();
    let ended: Vec<(&InstanceId, &InstanceSeen)> = here
        .filter_map(|id| observed.instances.get_key_value(id))
        .filter(|(id, seen)| {
            // Kubernetes replaces a job's Pods itself; what becomes of the job is planned with it.
            !jobs::is_task(view, id) && seen.stage == Stage::Running && seen.phase == Phase::Stopped
        })
        .collect();
    for (id, seen) in ended {
        let (at, failures) = seen.ended.unwrap_or((view.now, 1));
        let due = at.after(pause(failures));
        if view.now >= due {
            view.drain(id, "its Pod has ended");
        } else {
            view.wake(due);
            let reason = WaitReason::BackOff {
                id: id.clone(),
                failures,
            };
            view.wait(&id.slot.service, reason);
        }
    }
}

/// The pause after so many failures in a row.
fn pause(failures: u32) -> Duration {
    FIRST
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(LONGEST)
}

/// Services with instances in a cluster that does not answer say so.
fn hold(view: &mut View<'_>) {
    let mut held: Vec<(ServiceName, ClusterName, String)> = Vec::new();
    for id in &view.state.in_clusters {
        let Some(Place::Cluster(name)) = view.get(id).map(|placed| &placed.place) else {
            continue;
        };
        let service = &id.slot.service;
        let why = match view.observed.clusters.get(name) {
            Some(cluster) => cluster.unreachable.clone(),
            None => Some("it is not in coordinator.toml any more".to_owned()),
        };
        let told = held.iter().any(|(s, c, _)| s == service && c == name);
        if let Some(why) = why.filter(|_| !told) {
            held.push((service.clone(), name.clone(), why));
        }
    }
    for (service, cluster, why) in held {
        view.wait(&service, WaitReason::Hold { cluster, why });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use berth_model::node::RuntimeKind;

    use super::*;
    use crate::fleet::{Fleet, service};
    use crate::{Action, ClusterSeen, Needs};

    fn fleet() -> Fleet {
        let mut fleet = Fleet::exclusive(1);
        fleet.add_cluster("prod");
        let needs = Needs {
            runtime: RuntimeKind::Kubernetes,
            ..Needs::default()
        };
        fleet.deploy("web", 2, needs);
        fleet
    }

    fn reasons(fleet: &Fleet) -> Vec<String> {
        let waiting = fleet.plan().waiting;
        waiting.iter().map(|w| w.reason.to_string()).collect()
    }

    #[test]
    fn a_cluster_takes_what_is_for_kubernetes_and_nodes_do_not() {
        let mut fleet = fleet();
        fleet.converge(|_, _| {});
        assert_eq!(fleet.healthy("web"), 2);
        let places = fleet.observed.instances.values();
        assert!(places.clone().all(|seen| seen.place.cluster().is_some()));
    }

    #[test]
    fn what_ended_by_itself_is_replaced_after_a_growing_pause_by_a_new_attempt() {
        let mut fleet = fleet();
        fleet.converge(|_, _| {});
        let id: InstanceId = "web.1.0.1".parse().unwrap();
        let now = fleet.now;
        let seen = fleet.observed.instances.get_mut(&id).unwrap();
        seen.phase = Phase::Stopped;
        seen.ended = Some((now, 3));
        let plan = fleet.plan();
        assert!(plan.actions.is_empty(), "{plan:?}");
        assert_eq!(plan.wake, Some(now.after(Duration::from_secs(4))));
        assert!(reasons(&fleet)[0].contains("web.1.0.1 ended by itself"));
        fleet.pass(4_000);
        fleet.converge(|_, _| {});
        let ids: Vec<String> = fleet
            .observed
            .instances
            .keys()
            .map(ToString::to_string)
            .collect();
        assert_eq!(ids, ["web.1.0.2", "web.1.1.1"]);
    }

    #[test]
    fn a_cluster_out_of_reach_is_held_for_ever() {
        let mut fleet = fleet();
        fleet.converge(|_, _| {});
        let before = fleet.observed.instances.clone();
        for cluster in fleet.observed.clusters.values_mut() {
            cluster.unreachable = Some("connection refused".into());
        }
        fleet.pass(86_400_000);
        assert!(fleet.plan().actions.is_empty());
        assert!(reasons(&fleet)[0].contains("left as it is: connection refused"));
        fleet.observed.clusters = BTreeMap::<_, ClusterSeen>::new();
        assert!(fleet.plan().actions.is_empty());
        assert_eq!(fleet.observed.instances, before);
        assert!(reasons(&fleet)[0].contains("not in coordinator.toml"));
    }

    #[test]
    fn without_a_cluster_it_says_what_to_do() {
        let mut fleet = fleet();
        fleet.observed.clusters.clear();
        let plan = fleet.plan();
        let created = |a: &Action| matches!(a, Action::Create { .. });
        assert!(!plan.actions.iter().any(created));
        assert!(
            reasons(&fleet)[0].contains("add a [[cluster]]"),
            "{:?}",
            reasons(&fleet)
        );
        assert_eq!(plan.waiting[0].service, service("web"));
    }

    #[test]
    fn the_pause_has_an_end() {
        assert_eq!(pause(1), FIRST);
        assert_eq!(pause(u32::MAX), LONGEST);
    }
}
