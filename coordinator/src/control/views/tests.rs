//! Golden views: what people read in the situations that matter.

use std::fmt::Write;

use berth_model::api::{ServiceState, ServiceView, StatusProblem, StatusView};
use berth_model::event::Level;
use berth_model::instance::{Phase, Reason, Stage};
use berth_model::time::Span;
use berth_plan::{WaitReason, Waiting};

use super::{model, node, service, status};
use crate::control::clusters::{Reach, reach};
use crate::control::testing::{
    add_cluster, connect, instance, model_version, node_record, world_with_service,
};
use crate::control::world::World;

fn web(world: &World) -> ServiceView {
    service::one(world, &"web".parse().unwrap()).unwrap()
}

fn change(world: &mut World, id: &str, f: impl FnOnce(&mut berth_model::instance::InstanceRecord)) {
    let id: berth_model::id::InstanceId = id.parse().unwrap();
    let mut record = world.records.instances[&id].clone();
    f(&mut record);
    world.records.instances.put(id, record);
}

fn replicas(world: &mut World, n: u32) {
    let mut service = world.records.services["web"].clone();
    service.replicas = n;
    world.records.services.put(service.name.clone(), service);
}

fn text(view: &ServiceView) -> String {
    let mut out = format!("{} {}/{}\n", view.state, view.ready, view.replicas);
    for reason in &view.reasons {
        writeln!(out, "{reason}").unwrap();
    }
    out
}

fn problems(view: &StatusView) -> String {
    let lines = view
        .problems
        .iter()
        .map(|p| format!("{:?} {}: {}\n", p.level, p.subject, p.message));
    lines.collect()
}

#[test]
fn a_service_as_wanted_is_ready_and_says_nothing() {
    let view = web(&world_with_service());
    assert_eq!(text(&view), "ready 1/1\n");
    assert_eq!((view.revision, view.serial), (1, 1));
    assert_eq!(view.instances[0].node.to_string(), "n1");
}

#[test]
fn a_missing_place_makes_it_degraded_or_unavailable() {
    let mut w = world_with_service();
    replicas(&mut w, 2);
    assert_eq!(web(&w).state, ServiceState::Progressing);
    w.waiting.push(Waiting {
        service: "web".parse().unwrap(),
        reason: WaitReason::NoNode {
            missing: 1,
            nodes: 1,
            rejected: vec![(1, berth_plan::Rejection::Taken)],
            advice: "join another node".into(),
        },
    });
    assert!(text(&web(&w)).starts_with("degraded 1/2\n1 instance has no node: "));
    change(&mut w, "web.1.0.1", |r| r.status.phase = Phase::Starting);
    assert_eq!(web(&w).state, ServiceState::Unavailable);
}

#[test]
fn a_crash_loop_shows_its_reason_its_last_line_and_where_to_look() {
    let mut w = world_with_service();
    change(&mut w, "web.1.0.1", |r| {
        r.status.phase = Phase::Backoff;
        r.status.restarts = 3;
        r.status.reason = Some(Reason::Exited {
            process: "module".into(),
            code: 1,
        });
        r.status.last_lines = vec![
            "starting".into(),
            "model.bin is missing\n".into(),
            " ".into(),
        ];
    });
    let failing = "web.1.0.1 on n1 is in backoff: module exited with code 1 (restarted 3 times); last \
                   line: \"model.bin is missing\"; see `berth logs web.1.0.1`";
    assert_eq!(text(&web(&w)), format!("unavailable 0/1\n{failing}\n"));
    let view = status::status(&w);
    assert_eq!(
        problems(&view),
        format!(
            "Error service/web: unavailable, 0 of 1 instances ready: {failing}\n\
             Error gateways: no gateway is connected, so route changes reach none: start one with \
             `berth-coordinator --role gateway`\n\
             Warning instance/web.1.0.1: {failing}\n"
        )
    );
    assert_eq!(view.instances["backoff"], 1);
}

#[test]
fn a_new_revision_on_its_way_is_progress_and_a_leftover_is_not_ready() {
    let mut w = world_with_service();
    let two = model_version("dga", "2.0.0", 2);
    w.records.models.put((two.name.clone(), 2), two);
    let deploy = berth_model::api::Deploy {
        model: "dga@2.0.0".into(),
        service: Some("web".parse().unwrap()),
        ..berth_model::api::Deploy::default()
    };
    crate::control::commands::services::deploy(&mut w, &deploy).unwrap();
    let n2 = node_record("n2", true);
    w.records.nodes.put(n2.name.clone(), n2);
    connect(&mut w, "n2");
    let new = instance("web.2.0.1", "n2", Phase::Starting);
    w.records.instances.put(new.id.clone(), new);
    let view = web(&w);
    assert_eq!(
        text(&view),
        "progressing 1/1\nweb.2.0.1 on n2 is starting\n"
    );
    let ids: Vec<String> = view
        .instances
        .iter()
        .map(|i| i.status.id.to_string())
        .collect();
    assert_eq!(ids, ["web.2.0.1", "web.1.0.1"]);
    change(&mut w, "web.2.0.1", |r| r.status.phase = Phase::Healthy);
    change(&mut w, "web.1.0.1", |r| r.stage = Stage::Draining);
    assert_eq!(web(&w).state, ServiceState::Progressing);
    change(&mut w, "web.1.0.1", |r| r.stage = Stage::Lost);
    assert_eq!(web(&w).state, ServiceState::Ready);
}

#[test]
fn silent_and_lost_nodes_are_told_apart() {
    let mut w = world_with_service();
    w.now = w.now.after(Span::secs(25).0);
    assert_eq!(node::by_state(&w)["silent"], 1);
    let view = web(&w);
    // It serves all the same.
    assert_eq!((view.state, view.ready), (ServiceState::Ready, 1));
    assert!(view.reasons[0].contains("node n1, which is not connected"));
    let mut record = node_record("n1", true);
    record.lost = true;
    w.records.nodes.put(record.name.clone(), record);
    assert_eq!(node::by_state(&w)["lost"], 1);
    let view = status::status(&w);
    assert!(
        problems(&view).starts_with("Error node/n1: lost: its instances are replaced elsewhere")
    );
}

#[test]
fn what_is_not_there_is_told_with_what_may_have_been_meant() {
    let w = world_with_service();
    let missing = service::one(&w, &"wep".parse().unwrap()).unwrap_err();
    assert_eq!(missing.status, 404);
    assert!(
        missing.detail.contains("did you mean \"web\"?"),
        "{missing}"
    );
    assert_eq!(
        node::one(&w, &"x9".parse().unwrap()).unwrap_err().status,
        404
    );
    assert_eq!(
        model::one(&w, &"dgb".parse().unwrap()).unwrap_err().status,
        404
    );
    assert_eq!(model::all(&w)[0].versions.len(), 1);
}

#[test]
fn a_failed_store_stands_first() {
    let mut w = world_with_service();
    w.store_problem = Some("the disk is full".into());
    w.settling = true;
    let (level, says) = (crate::disk::Level::Low, "1 MiB of 9 MiB".into());
    w.disk = crate::disk::Found { level, says };
    let view = status::status(&w);
    let low = |p: &StatusProblem| p.message.starts_with("disk-low: 1 MiB of 9 MiB");
    assert!(view.problems.iter().any(low), "{:?}", view.problems);
    assert!(view.problems[0].message.contains("the disk is full"));
    assert!(
        view.problems
            .iter()
            .any(|p| p.message.contains("restored from a backup"))
    );
}

#[test]
fn a_cluster_out_of_reach_or_without_a_right_is_told() {
    let mut world = world_with_service();
    add_cluster(&mut world, "prod");
    let prod: berth_model::id::ClusterName = "prod".parse().unwrap();
    let mut told = |told: Reach| {
        reach(&mut world, &prod, told);
        let view = status::status(&world);
        let problems = view.problems.into_iter();
        let mut of_it = problems.filter(|p| p.subject == "cluster/prod");
        of_it.next().map(|p| (p.level, p.message))
    };
    let why = "Connection refused".to_owned();
    let (level, message) = told(Reach::Unreachable { why }).unwrap();
    assert!(message.contains("Connection refused"), "{message}");
    assert_eq!(level, Level::Error);
    let lacking = Some("the right to list events is missing".to_owned());
    let (level, message) = told(Reach::Ready { lacking }).unwrap();
    assert!(message.contains("list events"), "{message}");
    assert_eq!(level, Level::Warning);
    assert_eq!(told(Reach::Ready { lacking: None }), None);
}
