//! One work: what control shall be told of it, and what is to be done. Pure.

use berth_kubernetes::{Seen, Verdict};

use crate::control::{PodReport, WorkName, WorkNews, WorkOrder, WorkReport};

/// What to do about a Kubernetes Job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Make it.
    Create,
    /// Delete the one with this UID.
    Delete {
        /// Its UID.
        uid: String,
    },
}

/// What a cluster shows of one work.
pub(super) struct Shown<'a> {
    /// The Job's name.
    pub(super) job: &'a str,
    /// What holds for it; none: nothing may be concluded.
    pub(super) verdict: Option<Verdict>,
    /// The Job and its Pods.
    pub(super) seen: Option<&'a Seen>,
    /// A create is under way.
    pub(super) creating: bool,
}

/// What control is to be told, and what is to be done.
pub(super) fn decide(
    name: &WorkName,
    order: &WorkOrder,
    shown: &Shown<'_>,
) -> (Option<WorkReport>, Option<Step>) {
    let Some(verdict) = shown.verdict.clone() else {
        return (None, None);
    };
    let uid = shown.seen.map(|seen| seen.uid.clone()).unwrap_or_default();
    let step = match &verdict {
        Verdict::Gone if order.present && order.uid.is_none() => {
            // It was never made, or the answer was lost and it is not there.
            return (None, (!shown.creating).then_some(Step::Create));
        }
        Verdict::Gone if shown.creating => return (None, None),
        Verdict::Gone | Verdict::Deleting => None,
        _ if order.present => None,
        _ => Some(Step::Delete { uid: uid.clone() }),
    };
    let report = WorkReport {
        work: name.clone(),
        job: shown.job.to_owned(),
        uid,
        news: news(verdict),
        pods: shown.seen.map(pods).unwrap_or_default(),
    };
    (Some(report), step)
}

fn news(verdict: Verdict) -> WorkNews {
    match verdict {
        Verdict::Pending { why } => WorkNews::Waiting(why),
        Verdict::Running => WorkNews::Running,
        Verdict::Ended(ending) => WorkNews::Ended {
            reason: ending.reason,
            last_lines: ending.last_lines,
        },
        Verdict::Deleting => WorkNews::Deleting,
        Verdict::Gone => WorkNews::Gone,
    }
}

fn pods(seen: &Seen) -> Vec<PodReport> {
    let pods = seen.pods.iter().map(|pod| PodReport {
        uid: pod.uid.clone(),
        name: pod.name.clone(),
        ended: pod
            .ended
            .as_ref()
            .map(|ending| (ending.reason.clone(), ending.last_lines.clone())),
    });
    // What vanished is known by its name only.
    let lost = seen.lost_pods.iter().map(|pod| PodReport {
        uid: String::new(),
        name: pod.name.clone(),
        ended: Some((pod.ending.reason.clone(), pod.ending.last_lines.clone())),
    });
    pods.chain(lost).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::control::testing_manifest;
    use berth_kubernetes::Ending;
    use berth_model::instance::Reason;

    fn name() -> WorkName {
        WorkName::Instance("web.1.0.1".parse().unwrap())
    }

    fn order(present: bool, uid: Option<&str>) -> WorkOrder {
        WorkOrder {
            present,
            uid: uid.map(str::to_owned),
            manifest: Arc::new(testing_manifest("web", "1.0.0")),
            counted: None,
            token: String::new(),
        }
    }

    fn seen(verdict: Verdict) -> Seen {
        Seen {
            name: "berth-web-1-0-1".into(),
            uid: "u1".into(),
            work: None,
            present: true,
            deleting: false,
            succeeded: 0,
            failed: 0,
            pods: Vec::new(),
            lost_pods: Vec::new(),
            verdict,
        }
    }

    fn run(
        order: &WorkOrder,
        verdict: Option<Verdict>,
        creating: bool,
    ) -> (Option<WorkNews>, Option<Step>) {
        let there = verdict.clone().filter(|v| *v != Verdict::Gone).map(seen);
        let shown = Shown {
            job: "berth-web-1-0-1",
            verdict,
            seen: there.as_ref(),
            creating,
        };
        let (report, step) = decide(&name(), order, &shown);
        (report.map(|r| r.news), step)
    }

    #[test]
    fn what_was_never_made_is_made_once() {
        let wanted = order(true, None);
        assert_eq!(
            run(&wanted, Some(Verdict::Gone), false),
            (None, Some(Step::Create))
        );
        assert_eq!(run(&wanted, Some(Verdict::Gone), true), (None, None));
        let running = run(&wanted, Some(Verdict::Running), true);
        assert_eq!(running, (Some(WorkNews::Running), None));
    }

    #[test]
    fn what_was_made_and_is_gone_is_never_made_again() {
        let made = order(true, Some("u1"));
        assert_eq!(
            run(&made, Some(Verdict::Gone), false),
            (Some(WorkNews::Gone), None)
        );
    }

    #[test]
    fn of_a_cluster_out_of_reach_nothing_is_concluded() {
        for order in [
            order(true, None),
            order(true, Some("u1")),
            order(false, Some("u1")),
        ] {
            assert_eq!(run(&order, None, false), (None, None));
        }
    }

    #[test]
    fn what_is_not_wanted_is_deleted_by_its_uid_until_it_is_gone() {
        let unwanted = order(false, Some("u1"));
        let ended = Verdict::Ended(Ending {
            reason: Reason::Completed,
            exit_code: Some(0),
            last_lines: Vec::new(),
        });
        for verdict in [Verdict::Running, Verdict::Pending { why: None }, ended] {
            let (_, step) = run(&unwanted, Some(verdict), false);
            assert_eq!(step, Some(Step::Delete { uid: "u1".into() }));
        }
        let deleting = run(&unwanted, Some(Verdict::Deleting), false);
        assert_eq!(deleting, (Some(WorkNews::Deleting), None));
        assert_eq!(
            run(&unwanted, Some(Verdict::Gone), false),
            (Some(WorkNews::Gone), None)
        );
        // A create whose answer is still out: it may yet appear.
        assert_eq!(run(&unwanted, Some(Verdict::Gone), true), (None, None));
    }
}
