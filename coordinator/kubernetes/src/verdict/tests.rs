use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Event;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::manifest::{MODULE, PREPARE};

/// Jobs, their Pods and warnings, as a v1.20.2 cluster showed them (what is long and not read is cut out).
fn recorded() -> BTreeMap<String, (Job, Vec<Pod>, Vec<Event>)> {
    let all: BTreeMap<String, Value> =
        serde_json::from_str(include_str!("recorded-v1.20.2.json")).unwrap();
    let parse = |v: &Value| {
        (
            serde_json::from_value(v["job"].clone()).unwrap(),
            serde_json::from_value(v["pods"].clone()).unwrap(),
            serde_json::from_value(v["events"].clone()).unwrap(),
        )
    };
    all.iter()
        .map(|(name, v)| (name.clone(), parse(v)))
        .collect()
}

fn about(events: &[Event], name: &str) -> Vec<Warning> {
    let of = |e: &&Event| e.involved_object.name.as_deref() == Some(name);
    events
        .iter()
        .filter(of)
        .map(|e| Warning {
            reason: e.reason.clone().unwrap_or_default(),
            message: e.message.clone().unwrap_or_default(),
            at: e.last_timestamp.as_ref().map(|t| t.0),
        })
        .collect()
}

fn judged(name: &str, job: Option<&Job>, pods: &[Pod], events: &[Event]) -> Seen {
    let warnings: Vec<Vec<Warning>> = pods
        .iter()
        .map(|pod| about(events, pod.metadata.name.as_deref().unwrap_or_default()))
        .collect();
    let pods: Vec<(&Pod, &[Warning])> = pods
        .iter()
        .zip(warnings.iter().map(Vec::as_slice))
        .collect();
    judge(Facts {
        name,
        job,
        pods: &pods,
        warnings: &about(events, name),
        lost_pods: &[],
        deleting: false,
    })
}

/// One line per case, as people would be told.
fn told(seen: &Seen) -> String {
    match &seen.verdict {
        Verdict::Pending { why: None } => "pending".to_owned(),
        Verdict::Pending { why: Some(why) } => format!("pending: {why}"),
        Verdict::Ended(end) => {
            let mut text = format!("ended: {} (exit code {:?})", end.reason, end.exit_code);
            if !end.last_lines.is_empty() {
                text = format!("{text}; {}", end.last_lines.join(" / "));
            }
            text
        }
        other => format!("{other:?}").to_lowercase(),
    }
}

#[test]
fn what_a_real_cluster_showed_is_understood() {
    let text: Vec<String> = recorded()
        .iter()
        .map(|(name, (job, pods, events))| {
            let seen = judged(name, Some(job), pods, events);
            assert_eq!(Some(&seen.uid), job.metadata.uid.as_ref());
            assert!(seen.work.is_some(), "{name}");
            format!("{name}\n    {}\n", told(&seen))
        })
        .collect();
    let text = text.concat();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/verdict/told.txt");
    if std::env::var_os("BERTH_GOLDEN").is_some_and(|v| v == "write") {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(path).unwrap());
}

#[test]
fn without_its_job_a_pod_is_what_is_left_to_go() {
    for (name, (job, pods, events)) in recorded() {
        let seen = judged(&name, None, &pods, &events);
        assert!(!seen.present && seen.deleting);
        assert_eq!(
            seen.verdict,
            if pods.is_empty() {
                Verdict::Gone
            } else {
                Verdict::Deleting
            }
        );
        if !pods.is_empty() {
            assert_eq!(Some(seen.uid), job.metadata.uid, "{name}");
        }
    }
}

fn pod(status: &Value, extra: &Value) -> Pod {
    let mut pod = json!({
        "metadata": {"name": "p", "uid": "u", "annotations": {"io.berth/work": "instance:web.1.0.1"}},
        "spec": {"containers": [{"name": MODULE, "image": "i", "resources": {"limits": {"memory": "32Mi"}}}],
                 "initContainers": [{"name": PREPARE, "image": "b"}]},
        "status": status,
    });
    for (key, value) in extra.as_object().into_iter().flatten() {
        pod["metadata"][key] = value.clone();
    }
    serde_json::from_value(pod).unwrap()
}

fn ended(container: &str, state: &Value) -> Value {
    let list = if container == MODULE {
        "containerStatuses"
    } else {
        "initContainerStatuses"
    };
    json!({"phase": "Failed", list: [{
        "name": container, "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": state},
    }]})
}

fn reason(pod: &Pod) -> String {
    let ending = super::pod::seen(pod, &[]).ended.unwrap();
    ending.reason.to_string()
}

#[test]
fn ends_that_a_test_cluster_does_not_show() {
    let none = json!({});
    let killed = json!({"exitCode": 137, "reason": "Error"});
    assert!(reason(&pod(&ended(MODULE, &killed), &none)).contains("its limit is 32MiB"));
    // The init container has no limit here, so memory cannot have been it.
    assert!(reason(&pod(&ended(PREPARE, &killed), &none)).contains("signal 9"));
    let words = |code: i32, words: String| {
        let end = json!({"exitCode": code, "reason": "Error", "message": words});
        reason(&pod(&ended(MODULE, &end), &json!({})))
    };
    for known in [
        Reason::KilledAfterGrace,
        Reason::StopRequested,
        Reason::Package {
            error: "digest differs".to_owned(),
        },
        Reason::ModelLoad {
            error: "no such signature".to_owned(),
        },
    ] {
        assert_eq!(words(137, format!("{known}\nlast line")), known.to_string());
    }
    assert_eq!(
        words(3, "package: ".to_owned()),
        "module exited with code 3"
    );
    let segv = json!({"exitCode": 139, "reason": "Error"});
    assert!(reason(&pod(&ended(MODULE, &segv), &none)).contains("signal 11"));
    let start = json!({"exitCode": 128, "reason": "StartError", "message": "no such file"});
    assert!(
        reason(&pod(&ended(MODULE, &start), &none)).contains("could not be started: no such file")
    );

    let deleting =
        json!({"deletionTimestamp": "2026-01-01T00:01:00Z", "deletionGracePeriodSeconds": 30});
    let stopped = json!({"exitCode": 143, "reason": "Error", "finishedAt": "2026-01-01T00:00:31Z"});
    assert_eq!(
        reason(&pod(&ended(MODULE, &stopped), &deleting)),
        "Pod p was deleted by somebody else"
    );
    let before = json!({"exitCode": 143, "reason": "Error", "finishedAt": "2026-01-01T00:00:29Z"});
    assert!(reason(&pod(&ended(MODULE, &before), &deleting)).contains("signal 15"));

    let evicted = json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."});
    assert_eq!(
        reason(&pod(&evicted, &none)),
        "evicted: Evicted: The node was low on resource: memory."
    );
    let mut preempted = ended(MODULE, &json!({"exitCode": 143}));
    preempted["conditions"] = json!([{"type": "DisruptionTarget", "status": "True",
        "reason": "PreemptionByScheduler", "message": "more important"}]);
    assert_eq!(
        reason(&pod(&preempted, &none)),
        "evicted: PreemptionByScheduler: more important"
    );
    let silent = json!({"phase": "Failed"});
    assert!(reason(&pod(&silent, &none)).contains("does not say why"));
}

#[test]
fn a_quota_is_told_until_a_pod_is_made_after_all() {
    let job: Job = serde_json::from_value(json!({
        "metadata": {"name": "j", "uid": "1", "annotations": {"io.berth/work": "instance:web.1.0.1"}},
        "spec": {"template": {}}, "status": {},
    }))
    .unwrap();
    let refused = Warning {
        reason: "FailedCreate".to_owned(),
        message: "exceeded quota: q".to_owned(),
        at: Some("2026-01-01T00:00:10Z".parse().unwrap()),
    };
    let facts = |pods| Facts {
        name: "j",
        job: Some(&job),
        pods,
        warnings: std::slice::from_ref(&refused),
        lost_pods: &[],
        deleting: false,
    };
    assert_eq!(
        told(&judge(facts(&[]))),
        "pending: refused by Kubernetes: exceeded quota: q"
    );
    let later = pod(
        &json!({"phase": "Pending"}),
        &json!({"creationTimestamp": "2026-01-01T00:00:11Z"}),
    );
    assert_eq!(told(&judge(facts(&[(&later, &[])]))), "pending");
}

#[test]
fn amounts_of_memory_are_read_in_every_form() {
    for (text, bytes) in [
        ("33554432", Some(32 << 20)),
        ("32Mi", Some(32 << 20)),
        ("1G", Some(1_000_000_000)),
        ("1.5Gi", None),
        ("", None),
    ] {
        assert_eq!(super::pod::bytes(text), bytes, "{text}");
    }
}

fn condition() -> impl Strategy<Value = Value> {
    let kinds = prop::sample::select(vec!["Complete", "Failed", "Suspended", "FailureTarget"]);
    let values = prop::sample::select(vec!["True", "False"]);
    let reasons = prop::sample::select(vec!["DeadlineExceeded", "BackoffLimitExceeded", "X"]);
    (kinds, values, reasons)
        .prop_map(|(kind, value, reason)| json!({"type": kind, "status": value, "reason": reason}))
}

fn state() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({})),
        Just(json!({"running": {}})),
        ".{0,12}".prop_map(|m| json!({"waiting": {"reason": "ErrImagePull", "message": m}})),
        (any::<i32>(), ".{0,40}")
            .prop_map(|(code, m)| json!({"terminated": {"exitCode": code, "message": m}})),
    ]
}

fn any_pod() -> impl Strategy<Value = Value> {
    let phase = prop::sample::select(vec!["Pending", "Running", "Succeeded", "Failed", "Unknown"]);
    (phase, state(), state(), any::<bool>()).prop_map(|(phase, init, main, deleting)| {
        let status = |name: &str, state: Value| json!([{
            "name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state}]);
        let mut pod = json!({
            "metadata": {"name": "p", "uid": "u"},
            "status": {"phase": phase, "initContainerStatuses": status(PREPARE, init),
                       "containerStatuses": status(MODULE, main)},
        });
        if deleting {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        pod
    })
}

proptest! {
    #[test]
    fn every_state_has_one_meaning(
        conditions in prop::collection::vec(condition(), 0..3),
        pods in prop::collection::vec(any_pod(), 0..3),
        is_job in any::<bool>(),
        present in any::<bool>(),
        deleting in any::<bool>(),
    ) {
        let id = if is_job { "job:a@1" } else { "instance:a.1.0.1" };
        let job: Job = serde_json::from_value(json!({
            "metadata": {"name": "j", "uid": "1", "annotations": {"io.berth/work": id}},
            "spec": {"template": {}, "activeDeadlineSeconds": 5},
            "status": {"conditions": conditions},
        })).unwrap();
        let pods: Vec<Pod> = pods.into_iter().map(|p| serde_json::from_value(p).unwrap()).collect();
        let pods: Vec<(&Pod, &[Warning])> = pods.iter().map(|p| (p, &[][..])).collect();
        let seen = judge(Facts {
            name: "j", job: present.then_some(&job), pods: &pods, warnings: &[], lost_pods: &[], deleting,
        });
        // Gone is only ever what is not there; what is there and being deleted never runs or ends.
        prop_assert_eq!(seen.verdict == Verdict::Gone, !present && pods.is_empty());
        if present && deleting {
            prop_assert_eq!(&seen.verdict, &Verdict::Deleting);
        }
        let over = conditions.iter().any(|c| c["status"] == "True" && (c["type"] == "Complete" || c["type"] == "Failed"));
        if present && !deleting && over {
            prop_assert!(matches!(seen.verdict, Verdict::Ended(_)));
        }
        // A job goes on until Kubernetes says that it is over, whatever its Pods do.
        if present && !deleting && is_job && !over {
            prop_assert!(!matches!(seen.verdict, Verdict::Ended(_)));
        }
        for pod in &seen.pods {
            prop_assert!(pod.waiting.is_none() || !pod.started && pod.ended.is_none());
        }
    }
}
