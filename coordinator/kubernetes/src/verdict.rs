//! From API objects to Berth's words. Pure: the same objects mean the same, whoever sees them and when.

mod pod;

use berth_model::instance::Reason;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use crate::names::ANNOTATION_WORK;
use crate::picture::{PodSeen, Seen};
use crate::work::WorkId;

/// What holds for a Job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// No module runs yet.
    Pending {
        /// What keeps it, if something does.
        why: Option<Reason>,
    },
    /// A module runs.
    Running,
    /// It is over, and the Job and its Pods are still there.
    Ended(Ending),
    /// It is being deleted: the Job, or Pods that it left.
    Deleting,
    /// Neither the Job nor a Pod of it exists. Of a Job whose creation was answered: it was deleted.
    Gone,
}

/// How something ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// Why.
    pub reason: Reason,
    /// The deciding container's exit code, if one ended.
    pub exit_code: Option<i32>,
    /// The last lines that its container printed, if it failed.
    pub last_lines: Vec<String>,
}

impl Ending {
    fn because(reason: Reason) -> Self {
        Self {
            reason,
            exit_code: None,
            last_lines: Vec::new(),
        }
    }
}

/// A warning that some part of the cluster gave about a Job or a Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Its reason, as in `FailedCreate`.
    pub reason: String,
    /// Its words.
    pub message: String,
    /// When it was last given.
    pub at: Option<Timestamp>,
}

/// A Pod that is not there any more, although its Job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostPod {
    /// Its name.
    pub name: String,
    /// How it ended.
    pub ending: Ending,
}

/// Everything known of one Job.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The Job's name.
    pub name: &'a str,
    /// The Job, if it exists.
    pub job: Option<&'a Job>,
    /// Its Pods, with the warnings about each, oldest first.
    pub pods: &'a [(&'a Pod, &'a [Warning])],
    /// Warnings about the Job.
    pub warnings: &'a [Warning],
    /// Pods of it that are not there any more.
    pub lost_pods: &'a [LostPod],
    /// We asked for its deletion.
    pub deleting: bool,
}

/// What the facts of one Job mean.
pub fn judge(facts: Facts<'_>) -> Seen {
    let work = facts
        .job
        .and_then(|job| job.metadata.annotations.as_ref())
        .or_else(|| facts.pods.first()?.0.metadata.annotations.as_ref())
        .and_then(|all| all.get(ANNOTATION_WORK)?.parse().ok());
    let uid = facts
        .job
        .and_then(|job| job.metadata.uid.clone())
        .or_else(|| {
            facts
                .pods
                .first()
                .and_then(|(pod, _)| pod::owner(pod).map(|(_, uid)| uid))
        })
        .unwrap_or_default();
    let pods: Vec<PodSeen> = facts
        .pods
        .iter()
        .map(|(pod, warnings)| pod::seen(pod, warnings))
        .collect();
    let status = facts.job.and_then(|job| job.status.as_ref());
    let count = |n: Option<i32>| n.and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    let deleting = facts.deleting
        || facts
            .job
            .is_none_or(|job| job.metadata.deletion_timestamp.is_some());
    let verdict = verdict(&facts, &pods, work.as_ref(), deleting);
    Seen {
        name: facts.name.to_owned(),
        uid,
        work,
        present: facts.job.is_some(),
        deleting,
        succeeded: count(status.and_then(|s| s.succeeded)),
        failed: count(status.and_then(|s| s.failed)),
        lost_pods: facts.lost_pods.to_vec(),
        pods,
        verdict,
    }
}

fn verdict(facts: &Facts<'_>, pods: &[PodSeen], work: Option<&WorkId>, deleting: bool) -> Verdict {
    let Some(job) = facts.job else {
        return if pods.is_empty() {
            Verdict::Gone
        } else {
            Verdict::Deleting
        };
    };
    if deleting {
        return Verdict::Deleting;
    }
    if let Some(ending) = finished(job, pods, facts.lost_pods) {
        return Verdict::Ended(ending);
    }
    // An instance has one Pod in its life. What Kubernetes makes in place of one that vanished is not it.
    if matches!(work, Some(WorkId::Instance(_))) {
        let lost = facts.lost_pods.first().map(|pod| pod.ending.clone());
        if let Some(ending) = lost.or_else(|| pods.iter().find_map(|pod| pod.ended.clone())) {
            return Verdict::Ended(ending);
        }
    }
    if pods.iter().any(|pod| pod.started && pod.ended.is_none()) {
        return Verdict::Running;
    }
    let newest = facts
        .pods
        .iter()
        .filter_map(|(pod, _)| pod.metadata.creation_timestamp.as_ref().map(|t| t.0))
        .max();
    let why = pods
        .iter()
        .filter(|pod| pod.ended.is_none())
        .find_map(|pod| pod.waiting.clone())
        .or_else(|| not_created(facts.warnings, newest));
    Verdict::Pending { why }
}

/// The Job's controller could not make a Pod, and has made none since.
fn not_created(warnings: &[Warning], newest_pod: Option<Timestamp>) -> Option<Reason> {
    let latest = warnings.iter().rev().find(|w| w.reason == "FailedCreate")?;
    let outdated = matches!((newest_pod, latest.at), (Some(pod), Some(at)) if at < pod);
    (!outdated).then(|| Reason::Refused {
        error: latest.message.clone(),
    })
}

/// What the Job's controller has decided.
fn finished(job: &Job, pods: &[PodSeen], lost: &[LostPod]) -> Option<Ending> {
    let conditions = job.status.as_ref()?.conditions.as_deref()?;
    let holds = |kind: &str| {
        conditions
            .iter()
            .find(|c| c.type_ == kind && c.status == "True")
    };
    if holds("Complete").is_some() {
        return Some(Ending {
            reason: Reason::Completed,
            exit_code: Some(0),
            last_lines: Vec::new(),
        });
    }
    let failed = holds("Failed")?;
    let pod = pods
        .iter()
        .rev()
        .filter_map(|pod| pod.ended.clone())
        .find(|ending| ending.reason != Reason::Completed);
    if failed.reason.as_deref() == Some("DeadlineExceeded") {
        let seconds = job.spec.as_ref().and_then(|s| s.active_deadline_seconds);
        let seconds = seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(0);
        return Some(Ending {
            reason: Reason::DeadlineExceeded {
                after_ms: seconds.saturating_mul(1000),
            },
            exit_code: pod.as_ref().and_then(|p| p.exit_code),
            last_lines: pod.map(|p| p.last_lines).unwrap_or_default(),
        });
    }
    let words = || {
        [failed.reason.as_deref(), failed.message.as_deref()]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(": ")
    };
    Some(pod.unwrap_or_else(|| match lost.last() {
        Some(pod) => pod.ending.clone(),
        None => Ending::because(Reason::Refused { error: words() }),
    }))
}

pub(crate) use pod::{last_ending, owner};

#[cfg(test)]
mod tests;
