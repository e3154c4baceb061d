use berth_model::api::CreateJob;
use berth_model::instance::{InstanceStatus, PodRecord};
use berth_model::job::{Piece, ShardInput, TaskOutput};
use berth_model::node::RuntimeKind;

use super::ClusterJob;
use super::*;
use crate::control::NewJob;
use crate::control::commands::statuses;
use crate::control::testing::{instance, status, world_with_service};

fn blob(n: u8) -> BlobDigest {
    BlobDigest::from_bytes([n; 32])
}

fn new(name: Option<&str>, shards: usize) -> NewJob {
    let piece = Piece {
        name: String::new(),
        blob: blob(1),
        offset: 5,
        bytes: 10,
    };
    NewJob {
        wanted: CreateJob {
            model: "dga".into(),
            name: name.map(|n| n.parse().unwrap()),
            retries: Some(1),
            ..CreateJob::default()
        },
        shards: vec![
            ShardInput {
                folder: false,
                pieces: vec![piece],
            };
            shards
        ],
        note: None,
    }
}

/// A job `score` of two shards whose first one a task on `n1` works on.
fn working() -> (World, InstanceId) {
    let mut w = world_with_service();
    create(&mut w, new(Some("score"), 2)).unwrap();
    let record = instance("score.1.0.1", "n1", Phase::Starting);
    let id = record.id.clone();
    w.records.attempts.put(id.slot.clone(), 1);
    w.records.instances.put(id.clone(), record);
    w.fresh.clear();
    (w, id)
}

fn n1() -> AgentName {
    AgentName::Node("n1".parse().unwrap())
}

fn end(w: &mut World, id: &InstanceId, reason: Reason, output: Option<u8>) {
    let status = InstanceStatus {
        reason: Some(reason),
        last_lines: vec!["x".repeat(2_000); 20],
        output: output.map(|n| TaskOutput {
            blob: blob(n),
            bytes: 3,
            folder: false,
        }),
        ..status(&id.to_string(), Phase::Stopped)
    };
    statuses::take(w, &n1(), status);
}

fn kinds(w: &World) -> Vec<&str> {
    w.fresh.iter().map(|e| e.kind.as_str()).collect()
}

#[test]
fn a_job_is_named_after_its_model_with_a_number_that_is_never_given_again() {
    let mut w = world_with_service();
    assert_eq!(create(&mut w, new(None, 1)).unwrap().as_str(), "dga-1");
    create(&mut w, new(Some("dga-2"), 1)).unwrap();
    assert_eq!(create(&mut w, new(None, 1)).unwrap().as_str(), "dga-3");
    let three: JobName = "dga-3".parse().unwrap();
    w.records.jobs.remove(&three);
    assert_eq!(create(&mut w, new(None, 1)).unwrap().as_str(), "dga-4");
    // The same request again is the same job.
    let mut again = new(None, 1);
    again.wanted.request = Some("k".into());
    let first = create(&mut w, again).unwrap();
    let mut again = new(None, 1);
    again.wanted.request = Some("k".into());
    assert_eq!(create(&mut w, again).unwrap(), first);
}

#[test]
fn a_name_is_a_jobs_or_a_services_and_no_identity_is_used_twice() {
    let mut w = world_with_service();
    let taken = create(&mut w, new(Some("web"), 1)).unwrap_err();
    assert!(
        taken.status == 409 && taken.detail.contains("service"),
        "{taken}"
    );
    let name = create(&mut w, new(Some("score"), 1)).unwrap();
    assert_eq!(
        create(&mut w, new(Some("score"), 1)).unwrap_err().status,
        409
    );
    let deploy = berth_model::api::Deploy {
        model: "dga".into(),
        service: Some("score".parse().unwrap()),
        ..berth_model::api::Deploy::default()
    };
    let taken = crate::control::commands::services::deploy(&mut w, &deploy).unwrap_err();
    assert!(taken.detail.contains("berth job delete score"), "{taken}");
    delete(&mut w, &name).unwrap();
    emptied(&mut w, &name);
    removed(&mut w, &name).unwrap();
    let name = create(&mut w, new(Some("score"), 1)).unwrap();
    assert_eq!(w.records.jobs[&name].revision, 2);
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let mut w = world_with_service();
    w.records.take_changes().unwrap();
    let mut zero = new(None, 1);
    zero.wanted.parallelism = Some(0);
    let mut runtime = new(None, 1);
    runtime.wanted.runtime = Some(RuntimeKind::Docker);
    let mut long = new(None, 1);
    long.shards[0].pieces = vec![long.shards[0].pieces[0].clone(); 5_000];
    let mut model = new(None, 1);
    model.wanted.model = "nix".into();
    for (bad, code) in [
        (zero, 422),
        (runtime, 422),
        (long, 422),
        (new(None, 0), 422),
        (new(None, 1_001), 422),
        (model, 404),
    ] {
        assert_eq!(create(&mut w, bad).unwrap_err().status, code);
    }
    assert!(w.records.take_changes().unwrap().is_empty());
}

#[test]
fn an_output_is_committed_by_the_current_attempt_only() {
    let (mut w, id) = working();
    announce(&mut w, &n1(), &id, blob(9)).unwrap();
    let other = AgentName::Node("n2".parse().unwrap());
    assert_eq!(
        announce(&mut w, &other, &id, blob(8)).unwrap_err().status,
        409
    );
    end(&mut w, &id, Reason::Completed, Some(9));
    assert!(kinds(&w).contains(&"task-completed"), "{:?}", kinds(&w));
    let job = &w.records.jobs["score"];
    assert_eq!(job.outputs[&0].blob, blob(9));
    assert!(job.announced.is_empty());

    // The attempt was given up meanwhile: what it brings is refused, and said.
    let (mut w, id) = working();
    let mut record = w.records.instances[&id].clone();
    record.stage = Stage::Lost;
    w.records.instances.put(id.clone(), record);
    assert_eq!(
        announce(&mut w, &n1(), &id, blob(9)).unwrap_err().status,
        409
    );
    end(&mut w, &id, Reason::Completed, Some(9));
    assert!(w.records.jobs["score"].outputs.is_empty());
    let refused = w.fresh.iter().find(|e| e.kind == "output-refused").unwrap();
    assert!(
        refused.message.contains("node was lost"),
        "{}",
        refused.message
    );
    w.records.instances.remove(&id);
    w.fresh.clear();
    end(&mut w, &id, Reason::Completed, Some(9));
    assert_eq!(kinds(&w), ["output-refused"]);
}

#[test]
fn failures_are_counted_kept_small_and_decide() {
    let crash = || Reason::Exited {
        process: "task".into(),
        code: 3,
    };
    let (mut w, id) = working();
    end(&mut w, &id, Reason::Rebooted, None);
    assert!(kinds(&w).contains(&"task-set-back"));
    assert_eq!(w.records.jobs["score"].failed, 0);
    for attempt in 2..=3 {
        let next = instance(&format!("score.1.0.{attempt}"), "n1", Phase::Starting);
        w.records.instances.put(next.id.clone(), next.clone());
        w.fresh.clear();
        end(&mut w, &next.id, crash(), None);
    }
    assert!(kinds(&w).contains(&"job-failed"), "{:?}", kinds(&w));
    let job = &w.records.jobs["score"];
    assert_eq!((job.failed, job.state.is_over()), (2, true));
    assert!(serde_json::to_vec(&job.failures).unwrap().len() < 2 * 24 * 1024 + 100);
    assert!(!job.failures[1].last_lines.is_empty());
}

#[test]
fn what_others_need_is_not_removed_with_a_job() {
    let (mut w, id) = working();
    end(&mut w, &id, Reason::Completed, Some(9));
    let name: JobName = "score".parse().unwrap();
    assert_eq!(input_bytes(&w, &blob(1)), Some(15));
    delete(&mut w, &name).unwrap();
    assert_eq!(input_bytes(&w, &blob(1)), None);
    assert!(leavings(&w).is_empty());
    emptied(&mut w, &name);
    assert_eq!(leavings(&w)[0].blobs, [blob(1), blob(9)]);
    create(&mut w, new(Some("other"), 1)).unwrap();
    assert_eq!(leavings(&w)[0].blobs, [blob(9)]);
    removed(&mut w, &name).unwrap();
    assert!(leavings(&w).is_empty() && !w.records.attempts.contains_key(&id.slot));
}

#[test]
fn a_pod_gets_one_shard_and_a_failed_pods_is_free_again() {
    let mut w = world_with_service();
    crate::control::testing::add_cluster(&mut w, "prod");
    let mut wanted = new(Some("score"), 2);
    wanted.wanted.runtime = Some(RuntimeKind::Kubernetes);
    let name = create(&mut w, wanted).unwrap();
    let pod = |uid: &str| PodRecord {
        job_uid: "j".into(),
        uid: uid.into(),
        ..PodRecord::default()
    };
    assert_eq!(claim(&mut w, &name, pod("a")).unwrap_err().status, 409);
    place(&mut w, &name, "prod".parse().unwrap());
    change(&mut w, &name, ClusterJob::Made { uid: "j".into() });
    let a = claim(&mut w, &name, pod("a")).unwrap();
    assert_eq!(claim(&mut w, &name, pod("a")).unwrap(), a);
    let b = claim(&mut w, &name, pod("b")).unwrap();
    assert_eq!((a.slot.ordinal, b.slot.ordinal), (0, 1));
    assert_eq!(claim(&mut w, &name, pod("c")).unwrap_err().status, 409);
    let foreign = PodRecord {
        job_uid: "other".into(),
        ..pod("d")
    };
    assert_eq!(claim(&mut w, &name, foreign).unwrap_err().status, 409);
    let ended = ClusterJob::PodEnded {
        pod_uid: "a".into(),
        reason: Reason::Evicted {
            error: "disk".into(),
        },
        last_lines: Vec::new(),
    };
    change(&mut w, &name, ended);
    assert_eq!(w.records.jobs["score"].failed, 1);
    assert_eq!(claim(&mut w, &name, pod("a")).unwrap_err().status, 409);
    let c = claim(&mut w, &name, pod("c")).unwrap();
    assert_eq!((c.slot.ordinal, c.attempt), (0, 2));
    let failed = Some(Reason::DeadlineExceeded { after_ms: 1 });
    change(&mut w, &name, ClusterJob::Concluded { failed });
    assert!(w.records.jobs["score"].state.is_over());
    change(&mut w, &name, ClusterJob::Gone);
    assert!(w.records.jobs["score"].cluster.is_none());
}

/// A clock that is set a year ahead or back ends no job, and keeps none alive.
#[test]
fn a_deadline_does_not_move_with_the_wall_clock() {
    let mut w = world_with_service();
    let none = std::collections::BTreeMap::new();
    w.records.jobs = crate::control::tracked::Tracked::clean(none)
        .watched(&[crate::control::tracked::Reader::Planner]);
    let mut wanted = new(Some("score"), 1);
    wanted.wanted.deadline = Some(berth_model::time::Span::secs(60));
    create(&mut w, wanted).unwrap();
    let expires = |w: &mut World| {
        crate::control::feed::feed(w);
        let plan = w.planner.plan(w.now);
        let mut actions = plan.actions.iter();
        actions.any(|a| matches!(a, berth_plan::Action::ExpireJob { .. }))
    };
    assert!(!expires(&mut w));
    for years in [1, -2] {
        w.wall.0 = w.wall.0.saturating_add_signed(years * 365 * 86_400_000);
        // What is changed is looked at anew.
        let mut job = w.records.jobs["score"].clone();
        job.retries += 1;
        w.records.jobs.put(job.name.clone(), job);
        assert!(!expires(&mut w), "{years}");
    }
    w.now = w.now.after(std::time::Duration::from_secs(60));
    assert!(expires(&mut w));
}
