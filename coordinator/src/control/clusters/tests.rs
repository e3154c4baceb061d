use std::time::Duration;

use berth_model::id::{ClusterName, InstanceId};
use berth_model::instance::{Intent, Phase, Reason, Stage};
use berth_model::place::Place;
use berth_model::token::JoinToken;

use super::*;
use crate::control::agent::AgentName;
use crate::control::testing::{add_cluster, instance, status, world_with_service};
use crate::control::world::World;
use crate::control::{Join, PodJoin, feed};

fn id() -> InstanceId {
    "web.1.0.1".parse().unwrap()
}

fn prod() -> ClusterName {
    "prod".parse().unwrap()
}

/// `web.1.0.1` is in cluster `prod`, just created.
fn world() -> World {
    let mut world = world_with_service();
    add_cluster(&mut world, "prod");
    let mut record = instance("web.1.0.1", "n1", Phase::Assigned);
    record.place = Place::Cluster(prod());
    world.records.instances.put(id(), record);
    world
}

fn report(world: &mut World, uid: &str, news: WorkNews) {
    let report = WorkReport {
        work: WorkName::Instance(id()),
        job: "berth-web-1-0-1".into(),
        uid: uid.into(),
        news,
        pods: Vec::new(),
    };
    take(world, &prod(), vec![report]);
}

fn order(world: &World) -> WorkOrder {
    publish(world);
    let orders = world.clusters[&prod()].orders.borrow().clone();
    assert!(orders.settled);
    orders.works[&WorkName::Instance(id())].clone()
}

fn request(world: &World, key: &str) -> Join {
    let token: JoinToken = order(world).token.parse().unwrap();
    Join {
        token_id: token.id,
        token_secret: token.secret,
        key_hash: key.into(),
        name: String::new(),
        facts: berth_model::node::Facts::default(),
        pod: None,
    }
}

fn pod(uid: &str, job_uid: &str) -> PodJoin {
    PodJoin {
        uid: uid.into(),
        name: format!("pod-{uid}"),
        job_uid: job_uid.into(),
    }
}

#[test]
fn the_first_pod_of_the_job_is_the_instance_and_no_other() {
    let mut w = world();
    report(&mut w, "j1", WorkNews::Waiting(None));
    let ask = request(&w, "key");
    let (agent, spec) = join(&mut w, &ask, &pod("p1", "j1")).unwrap();
    assert_eq!(agent, AgentName::Pod(id()));
    assert_eq!((spec.id, spec.intent), (id(), Intent::Run));
    // Again is the same Pod, whose answer was lost.
    assert!(join(&mut w, &ask, &pod("p1", "j1")).is_ok());
    let second = join(&mut w, &ask, &pod("p2", "j1")).unwrap_err();
    assert_eq!(second.status, 403);
    assert!(second.detail.contains("Pod pod-p1 was it"), "{second}");
    assert_eq!(
        join(&mut w, &ask, &pod("p1", "j2")).unwrap_err().status,
        403
    );
    let by_key = crate::control::commands::agents::by_key(&w, "key");
    assert_eq!(by_key.unwrap(), AgentName::Pod(id()));
}

#[test]
fn a_token_is_for_one_instance_and_ends_with_it() {
    let mut w = world();
    let mut forged = request(&w, "key");
    forged.token_secret.push('x');
    assert_eq!(
        join(&mut w, &forged, &pod("p", "j")).unwrap_err().status,
        401
    );
    let mut other = request(&w, "key");
    other.token_id = format!("pod-{}", hex::encode("instance:web.1.0.2"));
    assert_eq!(
        join(&mut w, &other, &pod("p", "j")).unwrap_err().status,
        401
    );
    let mut record = w.records.instances[&id()].clone();
    record.stage = Stage::Stopping;
    let late = request(&w, "key");
    w.records.instances.put(id(), record);
    assert_eq!(join(&mut w, &late, &pod("p", "j")).unwrap_err().status, 403);
}

#[test]
fn why_a_pod_does_not_begin_is_told_until_its_agent_has_the_word() {
    let mut w = world();
    let reason = Reason::Unschedulable {
        error: "0/1 nodes are available: 1 Insufficient cpu.".into(),
    };
    report(&mut w, "j1", WorkNews::Waiting(Some(reason.clone())));
    let kept = &w.records.instances[&id()].status;
    assert_eq!(
        (kept.phase, kept.reason.clone()),
        (Phase::Preparing, Some(reason.clone()))
    );
    let ask = request(&w, "key");
    join(&mut w, &ask, &pod("p1", "j1")).unwrap();
    crate::control::commands::statuses::take(
        &mut w,
        &AgentName::Pod(id()),
        status("web.1.0.1", Phase::Healthy),
    );
    report(&mut w, "j1", WorkNews::Waiting(Some(reason)));
    assert_eq!(w.records.instances[&id()].status.phase, Phase::Healthy);
}

#[test]
fn an_end_is_kept_in_the_words_of_whoever_knows_more() {
    let mut w = world();
    let mut said = status("web.1.0.1", Phase::Stopped);
    said.reason = Some(Reason::Signaled {
        process: "module".into(),
        signal: 9,
    });
    said.last_lines = vec!["said".into()];
    crate::control::commands::statuses::take(&mut w, &AgentName::Pod(id()), said);
    let exited = Reason::Exited {
        process: "module".into(),
        code: 137,
    };
    let lines = vec!["kubelet".to_owned()];
    let news = |reason: &Reason| WorkNews::Ended {
        reason: reason.clone(),
        last_lines: lines.clone(),
    };
    report(&mut w, "j1", news(&exited));
    let kept = |w: &World| w.records.instances[&id()].status.clone();
    assert!(matches!(kept(&w).reason, Some(Reason::Signaled { .. })));
    let evicted = Reason::Evicted {
        error: "The node was low on resource: memory.".into(),
    };
    report(&mut w, "j1", news(&evicted));
    assert_eq!(kept(&w).reason, Some(evicted));
    assert_eq!(kept(&w).last_lines, ["said"]);
}

#[test]
fn a_job_deleted_behind_our_back_is_told_and_replaced() {
    let mut w = world();
    report(&mut w, "j1", WorkNews::Running);
    report(&mut w, "", WorkNews::Gone);
    let kept = w.records.instances[&id()].status.clone();
    assert_eq!(kept.phase, Phase::Stopped);
    assert!(
        kept.reason
            .unwrap()
            .to_string()
            .contains("Job berth-web-1-0-1 was deleted")
    );
    let (_, observed) = feed::everything(&w);
    assert_eq!(observed.instances[&id()].ended, Some((w.now, 1)));
    assert!(w.fresh.iter().any(|e| e.kind == "instance-stopped"));
}

#[test]
fn what_is_to_stop_has_stopped_when_nothing_of_it_is_left() {
    let mut w = world();
    report(&mut w, "j1", WorkNews::Running);
    let mut record = w.records.instances[&id()].clone();
    record.stage = Stage::Stopping;
    record.status.phase = Phase::Stopped;
    w.records.instances.put(id(), record);
    assert!(!order(&w).present);
    let phase = |w: &World| feed::everything(w).1.instances[&id()].phase;
    assert_eq!(phase(&w), Phase::Stopping);
    report(&mut w, "", WorkNews::Gone);
    assert_eq!(phase(&w), Phase::Stopped);
}

#[test]
fn failures_in_a_row_are_counted_until_one_was_steady() {
    let mut w = world();
    let end = |w: &mut World, healthy: Duration| {
        let mut before = status("web.1.0.1", Phase::Healthy);
        before.since = w.wall;
        let mut record = w.records.instances[&id()].clone();
        record.status = before;
        w.records.instances.put(id(), record);
        w.wall.0 += u64::try_from(healthy.as_millis()).unwrap();
        report(w, "j1", WorkNews::Gone);
        w.live.ends.streaks[&id().slot]
    };
    assert_eq!(end(&mut w, Duration::from_secs(1)), 1);
    assert_eq!(end(&mut w, Duration::from_secs(1)), 2);
    assert_eq!(end(&mut w, Duration::from_secs(700)), 1);
}

#[test]
fn reach_is_told_once() {
    let mut w = world();
    let away = Reach::Unreachable {
        why: "connection refused".into(),
    };
    assert!(reach(&mut w, &prod(), away.clone()));
    assert!(!reach(&mut w, &prod(), away));
    assert!(reach(&mut w, &prod(), Reach::Ready { lacking: None }));
    let kinds: Vec<&str> = w.fresh.iter().map(|e| e.kind.as_str()).collect();
    assert_eq!(kinds.iter().filter(|k| **k == "cluster-away").count(), 1);
    assert!(kinds.contains(&"cluster-reached"));
}

/// A job of two shards that runs in `prod`.
fn job(world: &mut World) -> (JobName, WorkName) {
    use crate::control::commands::jobs;
    let new = crate::control::NewJob {
        wanted: berth_model::api::CreateJob {
            model: "dga".into(),
            name: Some("score".parse().unwrap()),
            retries: Some(1),
            runtime: Some(berth_model::node::RuntimeKind::Kubernetes),
            ..Default::default()
        },
        shards: vec![berth_model::job::ShardInput::default(); 2],
        note: None,
    };
    let name = jobs::create(world, new).unwrap();
    jobs::place(world, &name, prod());
    let born = world.records.jobs[&name].created.0;
    let work = WorkName::Job {
        name: name.clone(),
        born,
    };
    (name, work)
}

fn job_report(world: &mut World, work: &WorkName, uid: &str, news: WorkNews, pods: Vec<PodReport>) {
    let report = WorkReport {
        work: work.clone(),
        job: "berth-job-score".into(),
        uid: uid.into(),
        news,
        pods,
    };
    take(world, &prod(), vec![report]);
}

#[test]
fn a_jobs_pods_get_shards_and_their_ends_free_them() {
    let mut w = world();
    let (name, work) = job(&mut w);
    publish(&w);
    let orders = w.clusters[&prod()].orders.borrow().clone();
    let order = orders.works[&work].clone();
    assert_eq!(order.counted.unwrap().completions, 2);
    job_report(&mut w, &work, "j", WorkNews::Running, Vec::new());
    assert_eq!(w.records.jobs[&name].uid.as_deref(), Some("j"));
    let token: JoinToken = order.token.parse().unwrap();
    let ask = Join {
        token_id: token.id,
        token_secret: token.secret,
        key_hash: "k1".into(),
        name: String::new(),
        facts: berth_model::node::Facts::default(),
        pod: None,
    };
    let (agent, spec) = join(&mut w, &ask, &pod("p1", "j")).unwrap();
    assert_eq!(agent.to_string(), "pod/score.1.0.1");
    assert_eq!(spec.task.unwrap().index, 0);
    let ended = PodReport {
        uid: "p1".into(),
        name: "pod-p1".into(),
        ended: Some((
            Reason::Evicted {
                error: "memory".into(),
            },
            vec!["last".into()],
        )),
    };
    job_report(&mut w, &work, "j", WorkNews::Running, vec![ended]);
    assert_eq!(w.records.jobs[&name].failed, 1);
    let (agent, _) = join(&mut w, &ask, &pod("p2", "j")).unwrap();
    assert_eq!(agent.to_string(), "pod/score.1.0.2");
}

#[test]
fn a_jobs_job_deleted_behind_our_back_fails_it_and_its_tasks() {
    let mut w = world();
    let (name, work) = job(&mut w);
    let refused = Reason::Refused {
        error: "quota exceeded".into(),
    };
    job_report(&mut w, &work, "", WorkNews::Refused(refused), Vec::new());
    let view = crate::control::views::job::one(&w, &name).unwrap();
    assert!(
        view.reasons.iter().any(|r| r.contains("quota exceeded")),
        "{view:?}"
    );
    job_report(&mut w, &work, "j", WorkNews::Running, Vec::new());
    job_report(&mut w, &work, "", WorkNews::Gone, Vec::new());
    let view = crate::control::views::job::one(&w, &name).unwrap();
    let reason = view.reason.unwrap().to_string();
    assert!(
        reason.contains("Job berth-job-score was deleted"),
        "{reason}"
    );
    assert!(w.records.jobs[&name].cluster.is_none());
}

#[test]
fn who_deleted_a_pod_is_not_told_as_wanted() {
    let mut w = world();
    let mut said = status("web.1.0.1", Phase::Stopped);
    said.reason = Some(Reason::StopRequested);
    crate::control::commands::statuses::take(&mut w, &AgentName::Pod(id()), said);
    let reason = Reason::Deleted {
        what: "Pod berth-web-1-0-1-x".into(),
    };
    let news = WorkNews::Ended {
        reason: reason.clone(),
        last_lines: Vec::new(),
    };
    report(&mut w, "j1", news);
    assert_eq!(w.records.instances[&id()].status.reason, Some(reason));
}

#[test]
fn the_end_of_a_second_pod_is_that_of_the_first_one_deleted() {
    let mut w = world();
    report(&mut w, "j1", WorkNews::Running);
    let ask = request(&w, "key");
    join(&mut w, &ask, &pod("p1", "j1")).unwrap();
    let refused = Reason::Exited {
        process: "prepare".into(),
        code: 1,
    };
    let seen = |uid: &str, ended: Option<Reason>| PodReport {
        uid: uid.into(),
        name: format!("pod-{uid}"),
        ended: ended.map(|reason| (reason, Vec::new())),
    };
    let report = WorkReport {
        work: WorkName::Instance(id()),
        job: "berth-web-1-0-1".into(),
        uid: "j1".into(),
        news: WorkNews::Ended {
            reason: refused.clone(),
            last_lines: vec!["refused".into()],
        },
        pods: vec![seen("p1", None), seen("p2", Some(refused))],
    };
    take(&mut w, &prod(), vec![report]);
    let kept = &w.records.instances[&id()].status;
    let told = kept.reason.as_ref().unwrap().to_string();
    assert_eq!(told, "Pod pod-p1 was deleted by somebody else");
    assert!(kept.last_lines.is_empty());
}
