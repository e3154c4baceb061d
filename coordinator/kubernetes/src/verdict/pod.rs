//! What one Pod's status means.

use berth_model::instance::Reason;
use k8s_openapi::api::core::v1::{
    ContainerStateTerminated, ContainerStatus, Pod, PodCondition, PodStatus,
};

use super::{Ending, Warning};
use crate::manifest::{MODULE, PREPARE};
use crate::picture::PodSeen;

/// Most lines of a termination message that are kept.
const LAST_LINES: usize = 20;

/// The Job that a Pod belongs to: name and UID.
pub(crate) fn owner(pod: &Pod) -> Option<(String, String)> {
    let metadata = &pod.metadata;
    let by_reference = metadata
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.kind == "Job")
        .map(|owner| (owner.name.clone(), owner.uid.clone()));
    // An orphan has lost its reference, not its labels.
    by_reference.or_else(|| {
        let labels = metadata.labels.as_ref()?;
        let name = labels.get("job-name")?.clone();
        Some((name, labels.get("controller-uid")?.clone()))
    })
}

pub(super) fn seen(pod: &Pod, warnings: &[Warning]) -> PodSeen {
    let none = PodStatus::default();
    let status = pod.status.as_ref().unwrap_or(&none);
    let deleting = pod.metadata.deletion_timestamp.is_some();
    let module = status
        .container_statuses
        .iter()
        .flatten()
        .find(|c| c.name == MODULE);
    let started = module
        .and_then(|c| c.state.as_ref())
        .is_some_and(|state| state.running.is_some() || state.terminated.is_some());
    let ended = ended(pod, status);
    PodSeen {
        name: pod.metadata.name.clone().unwrap_or_default(),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        ip: status.pod_ip.as_ref().and_then(|ip| ip.parse().ok()),
        machine: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        deleting,
        started,
        waiting: (!started && ended.is_none())
            .then(|| waiting(pod, status, warnings))
            .flatten(),
        ended,
    }
}

/// How a Pod that is not there any more ended: as its last state says, or by being deleted.
pub(crate) fn last_ending(pod: &Pod) -> Ending {
    seen(pod, &[])
        .ended
        .unwrap_or_else(|| Ending::because(deleted(pod)))
}

fn deleted(pod: &Pod) -> Reason {
    Reason::Deleted {
        what: format!("Pod {}", pod.metadata.name.as_deref().unwrap_or_default()),
    }
}

/// A container that ended after somebody asked for its Pod's deletion ended because of that.
fn by_deletion(pod: &Pod, end: &ContainerStateTerminated) -> bool {
    let Some(until) = pod.metadata.deletion_timestamp.as_ref() else {
        return false;
    };
    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
    let asked = until.0.as_second().saturating_sub(grace);
    end.finished_at
        .as_ref()
        .is_none_or(|at| at.0.as_second() >= asked)
}

fn ended(pod: &Pod, status: &PodStatus) -> Option<Ending> {
    let statuses = |list: &Option<Vec<ContainerStatus>>| list.clone().unwrap_or_default();
    let inits = statuses(&status.init_container_statuses);
    let mains = statuses(&status.container_statuses);
    let terminated = |c: &ContainerStatus| c.state.as_ref()?.terminated.clone();
    let module = mains.iter().find(|c| c.name == MODULE).and_then(terminated);
    let prepare = inits
        .iter()
        .find(|c| c.name == PREPARE)
        .and_then(terminated);
    let module = module.map(|end| ending(pod, MODULE, &end));
    let prepare = prepare
        .filter(|end| end.exit_code != 0)
        .map(|end| ending(pod, PREPARE, &end));
    let done = module.or(prepare);
    let failed = status.phase.as_deref() == Some("Failed");
    if done
        .as_ref()
        .is_some_and(|end| end.reason == Reason::Completed)
    {
        return done;
    }
    if failed && let Some(error) = evicted(status) {
        return Some(Ending {
            reason: Reason::Evicted { error },
            exit_code: done.as_ref().and_then(|end| end.exit_code),
            last_lines: done.map(|end| end.last_lines).unwrap_or_default(),
        });
    }
    done.or_else(|| match status.phase.as_deref() {
        Some("Succeeded") => Some(Ending {
            reason: Reason::Completed,
            exit_code: Some(0),
            last_lines: Vec::new(),
        }),
        // Old kubelets forget the containers of a Pod that was deleted.
        Some("Failed") if pod.metadata.deletion_timestamp.is_some() => {
            Some(Ending::because(deleted(pod)))
        }
        Some("Failed") => Some(Ending::because(Reason::FailedToStart {
            process: MODULE.to_owned(),
            error: pod_words(status),
        })),
        _ => None,
    })
}

/// The Pod as a whole was ended by its machine or by the scheduler.
fn evicted(status: &PodStatus) -> Option<String> {
    let target = condition(status, "DisruptionTarget", "True");
    let by_kubelet = status
        .reason
        .as_deref()
        .filter(|r| *r != "DeadlineExceeded");
    if by_kubelet.is_some() {
        return Some(pod_words(status));
    }
    target.map(|c| {
        let reason = c.reason.as_deref().unwrap_or_default();
        format!("{reason}: {}", c.message.as_deref().unwrap_or_default())
    })
}

fn pod_words(status: &PodStatus) -> String {
    let words: Vec<&str> = [status.reason.as_deref(), status.message.as_deref()]
        .into_iter()
        .flatten()
        .filter(|text| !text.is_empty())
        .collect();
    if words.is_empty() {
        return "the Pod failed, and Kubernetes does not say why".to_owned();
    }
    words.join(": ")
}

fn ending(pod: &Pod, process: &str, end: &ContainerStateTerminated) -> Ending {
    let code = end.exit_code;
    let process = process.to_owned();
    let words = end.message.clone().unwrap_or_default();
    let limit = memory_limit(pod, &process);
    let word = end.reason.as_deref().unwrap_or_default();
    // A container that the kernel killed for its memory is sometimes shown as one that failed by itself with
    // 137; who else kills one that nobody stops?
    let killed = code == 137 && limit.is_some();
    let said = said(&words);
    let reason = match word {
        _ if by_deletion(pod, end) => deleted(pod),
        _ if said.is_some() && code != 0 => said.unwrap_or(Reason::Unknown),
        "OOMKilled" => Reason::OutOfMemory {
            process,
            limit,
            peak: None,
        },
        _ if killed => Reason::OutOfMemory {
            process,
            limit,
            peak: None,
        },
        "ContainerCannotRun" | "StartError" => Reason::FailedToStart {
            process,
            error: words.clone(),
        },
        _ if code == 0 => Reason::Completed,
        _ if (129..=159).contains(&code) => Reason::Signaled {
            process,
            signal: code - 128,
        },
        _ => Reason::Exited { process, code },
    };
    let lines: Vec<String> = words.lines().map(str::to_owned).collect();
    Ending {
        reason,
        exit_code: Some(code),
        last_lines: lines[lines.len().saturating_sub(LAST_LINES)..].to_vec(),
    }
}

/// The agent in the Pod leaves its reason as the first line of the termination message, in [`Reason`]'s own
/// words. Those that an exit code does not tell are taken from there.
fn said(words: &str) -> Option<Reason> {
    let first = words.lines().next()?;
    let plain = [Reason::KilledAfterGrace, Reason::StopRequested];
    if let Some(reason) = plain.into_iter().find(|r| r.to_string() == first) {
        return Some(reason);
    }
    // A sentence with its error last: the same sentence around the rest of the line is the same reason.
    let makers: [fn(String) -> Reason; 3] = [
        |error| Reason::Package { error },
        |error| Reason::ModelLoad { error },
        |error| Reason::Node { error },
    ];
    makers.into_iter().find_map(|make| {
        let before = make(String::new()).to_string();
        let error = first.strip_prefix(&before)?;
        (!error.is_empty()).then(|| make(error.to_owned()))
    })
}

fn memory_limit(pod: &Pod, container: &str) -> Option<u64> {
    let spec = pod.spec.as_ref()?;
    spec.containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .find(|c| c.name == container)
        .and_then(|c| c.resources.as_ref()?.limits.as_ref()?.get("memory"))
        .and_then(|quantity| bytes(&quantity.0))
}

/// An amount of memory as Kubernetes writes it: ours go in as plain bytes and come out in its shortest form.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit: u64 = match &text[digits.len()..] {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

fn condition<'a>(status: &'a PodStatus, kind: &str, value: &str) -> Option<&'a PodCondition> {
    status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == kind && c.status == value)
}

fn waiting(pod: &Pod, status: &PodStatus, warnings: &[Warning]) -> Option<Reason> {
    if let Some(condition) = condition(status, "PodScheduled", "False") {
        return Some(Reason::Unschedulable {
            error: condition.message.clone().unwrap_or_default(),
        });
    }
    let all = || {
        status
            .init_container_statuses
            .iter()
            .flatten()
            .chain(status.container_statuses.iter().flatten())
    };
    for container in all() {
        let Some(waiting) = container.state.as_ref().and_then(|s| s.waiting.as_ref()) else {
            continue;
        };
        let words = waiting.message.clone().unwrap_or_default();
        let word = waiting.reason.as_deref().unwrap_or_default();
        match word {
            "ErrImagePull"
            | "ImagePullBackOff"
            | "ErrImageNeverPull"
            | "InvalidImageName"
            | "ImageInspectError"
            | "RegistryUnavailable"
            | "SignatureValidationFailed" => {
                let image = image(pod, container);
                let error = pull_error(&image, word, words, warnings);
                return Some(Reason::Image { image, error });
            }
            "" | "ContainerCreating" | "PodInitializing" => {}
            _ => {
                return Some(Reason::FailedToStart {
                    process: container.name.clone(),
                    error: format!("{word}: {words}"),
                });
            }
        }
    }
    warnings
        .iter()
        .rev()
        .find(|w| {
            let stuck = [
                "FailedMount",
                "FailedAttachVolume",
                "FailedCreatePodSandBox",
                "NetworkNotReady",
            ];
            stuck.contains(&w.reason.as_str())
        })
        .map(|w| Reason::FailedToStart {
            process: "pod".to_owned(),
            error: format!("{}: {}", w.reason, w.message),
        })
}

/// The image as it was asked for; a status shows it resolved.
fn image(pod: &Pod, status: &ContainerStatus) -> String {
    let spec = pod.spec.as_ref();
    spec.into_iter()
        .flat_map(|s| {
            s.containers
                .iter()
                .chain(s.init_containers.iter().flatten())
        })
        .find(|c| c.name == status.name)
        .and_then(|c| c.image.clone())
        .unwrap_or_else(|| status.image.clone())
}

/// While the kubelet waits before it pulls again, it says only that it waits; the cause is in its last event.
fn pull_error(image: &str, word: &str, words: String, warnings: &[Warning]) -> String {
    let cause = warnings.iter().rev().find(|w| {
        w.reason == "Failed" && w.message.starts_with("Failed to pull") && w.message.contains(image)
    });
    match cause {
        Some(cause) if word == "ImagePullBackOff" || words.is_empty() => cause.message.clone(),
        _ if words.is_empty() => word.to_owned(),
        _ => words,
    }
}
