use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::verdict::Verdict;

fn job(name: &str, uid: &str) -> Job {
    Job {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            uid: Some(uid.to_owned()),
            annotations: Some(
                [("io.berth/work".to_owned(), "instance:web.1.0.1".to_owned())].into(),
            ),
            ..ObjectMeta::default()
        },
        ..Job::default()
    }
}

fn pod(name: &str, of: &str, uid: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name, "uid": name, "labels": {"job-name": of, "controller-uid": uid}},
        "status": {"phase": "Running", "containerStatuses": [{"name": "module", "image": "i", "imageID": "",
            "ready": true, "restartCount": 0, "state": {"running": {}}}]},
    }))
    .unwrap()
}

fn verdict(cache: &mut Cache, name: &str) -> Option<Verdict> {
    cache.settle();
    cache.seen.get(name).map(|seen| seen.verdict.clone())
}

fn list(cache: &mut Cache, jobs: &[Job]) {
    cache.jobs(Event::Init);
    for job in jobs {
        cache.jobs(Event::InitApply(job.clone()));
    }
    cache.jobs(Event::InitDone);
}

#[test]
fn a_list_tells_what_went_away_unseen() {
    let mut cache = Cache::default();
    list(&mut cache, &[job("a", "1"), job("b", "2")]);
    assert!(verdict(&mut cache, "a").is_some() && verdict(&mut cache, "b").is_some());
    list(&mut cache, &[job("b", "2")]);
    assert!(verdict(&mut cache, "a").is_none() && verdict(&mut cache, "b").is_some());
    // Nothing is new: no picture.
    list(&mut cache, &[job("b", "2")]);
    assert!(cache.settle().is_none());
}

#[test]
fn what_was_created_while_a_list_was_under_way_stays() {
    let mut cache = Cache::default();
    cache.jobs(Event::Init);
    cache.created(job("a", "1"));
    cache.jobs(Event::InitDone);
    assert!(verdict(&mut cache, "a").is_some());
    // The next list was asked for after that, and must have it.
    list(&mut cache, &[]);
    assert!(verdict(&mut cache, "a").is_none());
}

#[test]
fn a_late_answer_brings_nothing_back() {
    let mut cache = Cache::default();
    cache.jobs(Event::Apply(job("a", "1")));
    cache.jobs(Event::Delete(job("a", "1")));
    cache.created(job("a", "1"));
    assert!(verdict(&mut cache, "a").is_none());
    cache.created(job("b", "2"));
    assert!(verdict(&mut cache, "b").is_some());
    cache.deleted("b", "2", true);
    assert!(verdict(&mut cache, "b").is_none());
}

#[test]
fn a_created_job_that_no_watch_ever_shows_is_gone() {
    let mut cache = Cache::default();
    cache.created(job("a", "1"));
    cache.created(job("b", "2"));
    cache.jobs(Event::Apply(job("b", "2")));
    for _ in 0..=UNSEEN {
        assert!(verdict(&mut cache, "a").is_some());
        cache.tick();
    }
    assert!(verdict(&mut cache, "a").is_none() && verdict(&mut cache, "b").is_some());
}

#[test]
fn a_deletion_is_through_when_the_last_pod_is_gone() {
    let mut cache = Cache::default();
    cache.jobs(Event::Apply(job("a", "1")));
    cache.pods(Event::Apply(pod("p", "a", "1")));
    assert_eq!(verdict(&mut cache, "a"), Some(Verdict::Running));
    cache.deleted("a", "1", false);
    assert_eq!(verdict(&mut cache, "a"), Some(Verdict::Deleting));
    cache.jobs(Event::Delete(job("a", "1")));
    assert_eq!(verdict(&mut cache, "a"), Some(Verdict::Deleting));
    cache.pods(Event::Delete(pod("p", "a", "1")));
    assert_eq!(verdict(&mut cache, "a"), None);
}

#[test]
fn an_instance_ends_with_its_pod_even_if_kubernetes_makes_another() {
    let mut cache = Cache::default();
    cache.jobs(Event::Apply(job("a", "1")));
    cache.pods(Event::Apply(pod("p", "a", "1")));
    cache.pods(Event::Delete(pod("p", "a", "1")));
    cache.pods(Event::Apply(pod("q", "a", "1")));
    let Some(Verdict::Ended(ending)) = verdict(&mut cache, "a") else {
        panic!("{:?}", verdict(&mut cache, "a"))
    };
    assert_eq!(
        ending.reason.to_string(),
        "Pod p was deleted by somebody else"
    );
}

#[test]
fn pods_of_an_earlier_job_of_that_name_are_not_the_new_ones() {
    let mut cache = Cache::default();
    cache.jobs(Event::Apply(job("a", "1")));
    cache.pods(Event::Apply(pod("p", "a", "1")));
    cache.jobs(Event::Delete(job("a", "1")));
    cache.jobs(Event::Apply(job("a", "2")));
    assert_eq!(
        verdict(&mut cache, "a"),
        Some(Verdict::Pending { why: None })
    );
    cache.pods(Event::Delete(pod("p", "a", "1")));
    assert_eq!(
        verdict(&mut cache, "a"),
        Some(Verdict::Pending { why: None })
    );
    assert!(cache.lost.is_empty());
}

#[test]
fn warnings_are_bounded_and_of_ours_only() {
    let warning = |name: &str, words: &str| -> ApiEvent {
        serde_json::from_value(json!({
            "metadata": {"name": "e"}, "reason": "FailedCreate", "message": words,
            "involvedObject": {"kind": "Job", "name": name},
        }))
        .unwrap()
    };
    let mut cache = Cache::default();
    cache.events(Event::Apply(warning("other", "x")));
    assert!(cache.warnings.is_empty());
    for i in 0..WARNED + 10 {
        cache.events(Event::Apply(warning(&format!("berth-{i}"), "x")));
    }
    assert_eq!(cache.warnings.len(), WARNED);
    for i in 0..20 {
        cache.events(Event::Apply(warning("berth-4000", &format!("{}", i % 10))));
    }
    let kept = &cache.warnings[&("Job".to_owned(), "berth-4000".to_owned())];
    assert_eq!(kept.len(), WARNINGS);
    assert_eq!(kept.back().unwrap().message, "9");
}

#[derive(Debug, Clone)]
enum Step {
    Create(u8),
    Delete(u8),
    Pod(u8),
    PodGone(u8),
    Relist,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4_u8).prop_map(Step::Create),
        (0..4_u8).prop_map(Step::Delete),
        (0..4_u8).prop_map(Step::Pod),
        (0..4_u8).prop_map(Step::PodGone),
        Just(Step::Relist),
    ]
}

proptest! {
    /// However the events come, the pictures are those of what is there now.
    #[test]
    fn the_picture_is_what_is_there(steps in prop::collection::vec(step(), 0..40)) {
        let mut cache = Cache::default();
        let mut jobs: BTreeMap<String, Job> = BTreeMap::new();
        let mut pods: BTreeMap<String, Pod> = BTreeMap::new();
        for (at, step) in steps.iter().enumerate() {
            match step {
                Step::Create(n) => {
                    let name = format!("berth-{n}");
                    let new = job(&name, &format!("uid-{at}"));
                    if let std::collections::btree_map::Entry::Vacant(free) = jobs.entry(name) {
                        free.insert(new.clone());
                        cache.created(new.clone());
                        cache.jobs(Event::Apply(new));
                    }
                }
                Step::Delete(n) => {
                    if let Some(old) = jobs.remove(&format!("berth-{n}")) {
                        cache.jobs(Event::Delete(old));
                    }
                }
                Step::Pod(n) => {
                    if let Some(of) = jobs.get(&format!("berth-{n}")) {
                        let new = pod(&format!("pod-{n}"), &format!("berth-{n}"), of.metadata.uid.as_ref().unwrap());
                        pods.insert(format!("pod-{n}"), new.clone());
                        cache.pods(Event::Apply(new));
                    }
                }
                Step::PodGone(n) => {
                    if let Some(old) = pods.remove(&format!("pod-{n}")) {
                        cache.pods(Event::Delete(old));
                    }
                }
                Step::Relist => {
                    let all: Vec<Job> = jobs.values().cloned().collect();
                    list(&mut cache, &all);
                }
            }
            cache.settle();
            for (name, seen) in &cache.seen {
                prop_assert_eq!(seen.present, jobs.contains_key(name));
                prop_assert!(seen.present || !seen.pods.is_empty());
                prop_assert!(seen.verdict != Verdict::Gone);
            }
            for name in jobs.keys() {
                prop_assert!(cache.seen.contains_key(name));
            }
        }
        let known: BTreeSet<&String> = jobs.values().filter_map(|j| j.metadata.uid.as_ref()).collect();
        prop_assert!(cache.lost.keys().all(|uid| known.contains(uid)));
    }
}
