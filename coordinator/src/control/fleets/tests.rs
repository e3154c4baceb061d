//! What people read of plans, and what applying does.

use std::fmt::Write;

use berth_model::api::{CreateJob, FleetRequest};
use berth_model::fleetfile::{self, Source};
use berth_model::instance::{Phase, Stage};
use berth_model::job::ShardInput;
use berth_model::problem::Problem;

use super::*;
use crate::control::testing::{connect, instance, model_version, node_record, world_with_service};

/// What a fleet file's text asks for. It must be one.
pub(super) fn fleet(text: &str) -> Fleet {
    let parsed = fleetfile::parse(&[Source {
        name: "fleet.toml",
        text,
    }]);
    assert_eq!(parsed.errors, [], "{text}");
    parsed.declared.fleet
}

pub(super) fn request(text: &str) -> FleetRequest {
    FleetRequest {
        fleet: fleet(text),
        ..FleetRequest::default()
    }
}

/// Applies as the API does: jobs that are new get as many shards as they want.
pub(super) fn apply(world: &mut World, request: &FleetRequest) -> Result<FleetPlan, Problem> {
    let new = request.fleet.jobs.iter();
    let new = new.filter(|(name, _)| !world.records.jobs.contains_key(*name));
    let cut: Vec<NewJob> = new.map(|(_, job)| cut(job)).collect();
    super::apply(world, request, cut)
}

fn cut(job: &CreateJob) -> NewJob {
    let shards = job.completions.unwrap_or(1) as usize;
    NewJob {
        wanted: job.clone(),
        shards: vec![ShardInput::default(); shards],
        note: None,
    }
}

fn text(plan: &FleetPlan) -> String {
    let mut out = String::new();
    for change in &plan.changes {
        writeln!(out, "{:?} {}", change.action, change.subject).unwrap();
        for f in &change.fields {
            writeln!(out, "  {}: {:?} -> {:?}", f.field, f.old, f.new).unwrap();
        }
        for effect in &change.effects {
            writeln!(out, "  * {}", effect.message).unwrap();
        }
    }
    for (what, list) in [
        ("adopted", &plan.adopted),
        ("leftover", &plan.leftover),
        ("warning", &plan.warnings),
    ] {
        for line in list {
            writeln!(out, "{what}: {line}").unwrap();
        }
    }
    out
}

fn errors(world: &World, fleet: &str) -> Vec<String> {
    let problem = plan(world, &request(fleet)).unwrap_err();
    assert_eq!(
        (problem.status, problem.kind.as_str()),
        (422, "urn:berth:problem:invalid-fleet")
    );
    problem.errors
}

/// `web` of `dga` 1.0.0 on n1; n2 is there, too, and dga 2.0.0.
fn world() -> World {
    let mut world = world_with_service();
    let two = model_version("dga", "2.0.0", 2);
    world.records.models.put((two.name.clone(), 2), two);
    let n2 = node_record("n2", true);
    world.records.nodes.put(n2.name.clone(), n2);
    connect(&mut world, "n2");
    world.records.take_changes().unwrap();
    world
}

const WEB: &str = "[service.web]\nmodel = \"dga@1.0.0\"\n";

#[test]
fn a_plan_tells_every_field_and_what_moves() {
    let mut w = world();
    let plan_of = |w: &World, text_of: &str| text(&plan(w, &request(text_of)).unwrap());
    assert_eq!(plan_of(&w, WEB), "adopted: service/web\n");
    let wanted = "
        [node.n1]
        labels = { rack = \"a\" }
        [pool.gpu]
        labels = { rack = \"a\" }
        [service.web]
        model = \"dga\"
        replicas = 3
        pool = \"gpu\"
        env = { LOG = \"info\" }
        [service.new]
        model = \"dga@1.0.0\"
        pool = \"gpuu\"
        [job.score]
        model = \"dga\"
        completions = 4
        parallelism = 2
    ";
    let shown = "Change node/n1
  labels.rack: None -> Some(\"a\")
Create pool/gpu
  labels.rack: None -> Some(\"a\")
Create service/new
  model: None -> Some(\"dga@1.0.0\")
  replicas: None -> Some(\"1\")
  max_unavailable: None -> Some(\"1\")
  runtime: None -> Some(\"process\")
  pool: None -> Some(\"gpuu\")
  * 1 instance starts
Change service/web
  model: Some(\"dga@1.0.0\") -> Some(\"dga@2.0.0\")
  replicas: Some(\"1\") -> Some(\"3\")
  pool: None -> Some(\"gpu\")
  env.LOG: None -> Some(\"info\")
  * 1 instance is replaced: web.1.0.1
  * 2 instances start
Create job/score
  model: None -> Some(\"dga@2.0.0\")
  completions: None -> Some(\"4\")
  parallelism: None -> Some(\"2\")
  retries: None -> Some(\"3\")
  runtime: None -> Some(\"process\")
  * at most 4 tasks run, 2 at a time
adopted: service/web
warning: service.new.pool: there is no pool gpuu, and no node or cluster has the label pool=gpuu, so nothing can be placed; did you mean \"gpu\"?
";
    assert_eq!(plan_of(&w, wanted), shown);
    assert!(
        w.records.take_changes().unwrap().is_empty(),
        "a plan changes nothing"
    );

    assert_eq!(text(&apply(&mut w, &request(wanted)).unwrap()), shown);
    let web = &w.records.services["web"];
    assert_eq!(web.current().unwrap().number, 2);
    assert_eq!(
        (web.replicas, web.fleet.as_ref().unwrap().as_str()),
        (3, "default")
    );
    assert_eq!(w.records.nodes["n1"].labels["rack"], "a");
    assert_eq!(w.records.jobs["score"].shards.len(), 4);
    let kinds: Vec<&str> = w.records.events.values().map(|e| e.kind.as_str()).collect();
    for kind in [
        "node-labelled",
        "pool-changed",
        "service-deployed",
        "job-created",
        "fleet-applied",
    ] {
        assert!(kinds.contains(&kind), "{kind} in {kinds:?}");
    }

    w.records.take_changes().unwrap();
    let again = apply(&mut w, &request(wanted)).unwrap();
    assert!(again.is_empty(), "{}", text(&again));
    assert_eq!(again.unchanged, 5);
    assert!(w.records.take_changes().unwrap().is_empty());
}

#[test]
fn every_mistake_is_told_and_nothing_is_done() {
    let mut w = world();
    let job = "[job.old]\nmodel = \"dga@1.0.0\"\nretries = 5\n";
    apply(&mut w, &request(job)).unwrap();
    w.records.take_changes().unwrap();
    let bad = "
        [node.n9]
        labels = { a = \"b\" }
        [model.dga]
        version = \"3.0.0\"
        [model.other]
        version = \"1.0.0\"
        [service.a]
        model = \"dgb\"
        runtime = \"docker\"
        [service.both]
        model = \"dga@1.5.0\"
        [service.old]
        model = \"dga\"
        [job.both]
        model = \"dga\"
        [job.old]
        model = \"dga@2.0.0\"
        env = { A = \"1\" }
    ";
    let found = errors(&w, bad);
    let wanted = [
        "node.n9: there is no node n9: join it first, or take the entry out; did you mean \"n1\"?",
        "model.dga.version: push it first, or say where its `package` is: model dga has no version 3.0.0; it has \
         2.0.0, 1.0.0",
        "model.other.version: push it first, or say where its `package` is: there is no model other; there are dga",
        "service.a.model: there is no model dgb; there are dga; did you mean \"dga\"?",
        "service.a.runtime: no node has the runtime docker: install it on one (`berth node list` shows what \
         they have), or deploy with --runtime process",
        "service.both.model: model dga has no version \"1.5.0\"; it has 2.0.0 (#2), 1.0.0 (#1)",
        "service.old: old is the name of a job, which a service cannot have: choose another with --service, or \
         delete the job with `berth job delete old`",
        "job.both: both is the name of a service, which a job cannot have: choose another",
        "job.old: old is the name of a service, which a job cannot have: choose another",
    ];
    assert_eq!(found, wanted);
    let alone = bad.replace("[service.old]\n        model = \"dga\"\n", "");
    let found = errors(&w, &alone);
    let changed: Vec<&String> = found.iter().filter(|e| e.starts_with("job.old.")).collect();
    assert_eq!(changed.len(), 3, "{found:?}");
    assert!(changed[0].starts_with(
        "job.old.model: it is dga@1.0.0 and declared is dga@2.0.0, but a job never changes: give the new one"
    ));
    assert!(apply(&mut w, &request(bad)).is_err());
    assert!(w.records.take_changes().unwrap().is_empty());
}

#[test]
fn a_package_at_hand_counts_for_plans_and_must_be_registered_to_apply() {
    let mut w = world();
    let next = model_version("dga", "3.0.0", 0);
    let mut wanted = request("[service.web]\nmodel = \"dga\"\n");
    let at_hand = berth_model::api::ModelWanted {
        version: next.version.clone(),
        digest: Some(next.digest),
        at_hand: true,
    };
    wanted
        .fleet
        .models
        .insert(next.name.clone(), at_hand.clone());
    let planned = plan(&w, &wanted).unwrap();
    let shown = text(&planned);
    assert!(
        shown.starts_with("Create model/dga\n  version: None -> Some(\"3.0.0\")"),
        "{shown}"
    );
    assert!(
        shown.contains("model: Some(\"dga@1.0.0\") -> Some(\"dga@3.0.0\")"),
        "{shown}"
    );
    wanted.versions = Some(planned.versions);
    let refused = apply(&mut w, &wanted).unwrap_err();
    assert!(refused.errors[0].starts_with("model.dga.package: dga 3.0.0 is not registered yet"));
    commands::models::register(&mut w, next.clone()).unwrap();
    let done = apply(&mut w, &wanted).unwrap();
    assert_eq!(done.changes.len(), 1, "{}", text(&done));
    assert_eq!(w.records.services["web"].current().unwrap().serial, 3);
    // The same version with another content.
    let other = berth_model::api::ModelWanted {
        digest: Some(model_version("x", "3.0.0", 0).digest),
        ..at_hand
    };
    wanted.fleet.models.insert(next.name, other);
    let refused = plan(&w, &wanted).unwrap_err();
    assert!(
        refused.errors[0].contains("raise `version` in berth.toml"),
        "{refused:?}"
    );
}

#[test]
fn pruning_removes_what_was_declared_and_nothing_made_by_hand() {
    let mut w = world();
    let full = "
        [node.n1]
        labels = { rack = \"a\" }
        [pool.gpu]
        labels = { rack = \"a\" }
        [service.api]
        model = \"dga@1.0.0\"
        pool = \"gpu\"
        [job.score]
        model = \"dga\"
    ";
    let mut n1 = w.records.nodes["n1"].clone();
    n1.labels.insert("by".into(), "hand".into());
    w.records.nodes.put(n1.name.clone(), n1);
    apply(&mut w, &request(full)).unwrap();
    let part = "[pool.gpu]\nlabels = { rack = \"a\" }\n[service.api]\nmodel = \"dga@1.0.0\"\npool = \"gpu\"\n";
    let kept = plan(&w, &request(part)).unwrap();
    assert_eq!(text(&kept), "leftover: job/score\nleftover: node/n1\n");
    let prune = |text: &str| FleetRequest {
        prune: true,
        ..request(text)
    };
    let shown = plan(&w, &prune(part)).unwrap();
    assert_eq!(
        text(&shown),
        "Delete job/score\n  model: Some(\"dga@2.0.0\") -> None\n  * its tasks stop; its output and its logs are \
         removed\nChange node/n1\n  labels.rack: Some(\"a\") -> None\nwarning: pool.gpu.labels: no node or cluster has \
         rack=a, so nothing can be placed in it\n"
    );
    // A pool that something is placed in cannot go.
    let used = "[service.api]\nmodel = \"dga@1.0.0\"\npool = \"gpu\"\n";
    let problem = plan(&w, &prune(used)).unwrap_err();
    assert!(
        problem.errors[0]
            .contains("pool gpu is not declared any more, but service/api is placed in it")
    );
    let none = apply(&mut w, &prune("")).unwrap();
    let subjects: Vec<&str> = none.changes.iter().map(|c| c.subject.as_str()).collect();
    assert_eq!(
        subjects,
        ["job/score", "service/api", "pool/gpu", "node/n1"]
    );
    assert!(w.records.services["api"].deleting);
    assert!(w.records.jobs["score"].deleting);
    assert!(!w.records.pools.contains_key("gpu"));
    let by_hand = &w.records.nodes["n1"];
    assert_eq!(by_hand.labels.keys().collect::<Vec<_>>(), ["by"]);
    assert!(by_hand.declared.is_empty());
    assert!(!w.records.services["web"].deleting);
    assert!(apply(&mut w, &prune("")).unwrap().is_empty());
}

#[test]
fn what_another_fleets_files_declare_is_taken_over_only_when_told() {
    let mut w = world();
    apply(&mut w, &request(&format!("fleet = \"a\"\n{WEB}"))).unwrap();
    let other = format!("fleet = \"b\"\n{WEB}replicas = 2\n");
    let found = errors(&w, &other);
    assert_eq!(
        found,
        [
            "service.web: the fleet files a declare it: take it out of those, or take it over with --adopt"
        ]
    );
    let adopt = FleetRequest {
        adopt: true,
        ..request(&other)
    };
    let done = apply(&mut w, &adopt).unwrap();
    assert_eq!(done.adopted, ["service/web"]);
    assert_eq!(
        w.records.services["web"].fleet.as_ref().unwrap().as_str(),
        "b"
    );
    // What a does not declare any more it does not prune either: it is b's.
    let prune = FleetRequest {
        prune: true,
        ..request("fleet = \"a\"\n")
    };
    assert!(apply(&mut w, &prune).unwrap().is_empty());
}

#[test]
fn a_plan_that_is_not_true_any_more_is_refused_with_what_has_changed() {
    let mut w = world();
    let both = format!("{WEB}replicas = 2\n[pool.gpu]\nlabels = {{ a = \"b\" }}\n");
    let seen = plan(&w, &request(&both)).unwrap();
    // A rollout, a restart and other people's services are no reason.
    let other = "fleet = \"b\"\n[service.other]\nmodel = \"dga\"\n";
    apply(&mut w, &request(other)).unwrap();
    let mut record = w.records.instances["web.1.0.1"
        .parse::<berth_model::id::InstanceId>()
        .as_ref()
        .unwrap()]
    .clone();
    record.status.phase = Phase::Unhealthy;
    w.records.instances.put(record.id.clone(), record);
    let by_plan = FleetRequest {
        versions: Some(seen.versions.clone()),
        ..request(&both)
    };
    let mut changed = {
        let name = "web".parse().unwrap();
        commands::services::scale(&mut w, &name, 5).unwrap();
        apply(&mut w, &by_plan).unwrap_err()
    };
    assert_eq!(
        (changed.status, changed.kind.as_str()),
        (409, "urn:berth:problem:changed-since")
    );
    assert_eq!(changed.errors, ["service/web"]);
    assert_eq!(w.records.services["web"].replicas, 5);
    commands::services::scale(&mut w, &"web".parse().unwrap(), 1).unwrap();
    apply(&mut w, &by_plan).unwrap();
    // The same plan twice.
    changed = apply(&mut w, &by_plan).unwrap_err();
    assert_eq!(changed.errors, ["pool/gpu", "service/web"]);
}

#[test]
fn what_runs_outside_of_its_pool_stays_and_is_told() {
    let mut w = world();
    let first = "[node.n1]\nlabels = { rack = \"a\" }\n[pool.gpu]\nlabels = { rack = \"a\" }\n\
                 [service.web]\nmodel = \"dga@1.0.0\"\npool = \"gpu\"\n";
    apply(&mut w, &request(first)).unwrap();
    let running = instance("web.2.0.1", "n1", Phase::Healthy);
    w.records.instances.put(running.id.clone(), running);
    let stays = "web.2.0.1 is outside the pool then and stays until replaced or drained";
    let moved = first.replacen("rack = \"a\"", "rack = \"b\"", 1);
    let shown = text(&plan(&w, &request(&moved)).unwrap());
    assert!(
        shown.starts_with(&format!(
            "Change node/n1\n  labels.rack: Some(\"a\") -> Some(\"b\")\n  * {stays}\n"
        )),
        "{shown}"
    );
    let chosen = first.replace(
        "[pool.gpu]\nlabels = { rack = \"a\" }",
        "[pool.gpu]\nlabels = { rack = \"c\" }",
    );
    let shown = text(&plan(&w, &request(&chosen)).unwrap());
    assert!(
        shown.starts_with(&format!(
            "Change pool/gpu\n  labels.rack: Some(\"a\") -> Some(\"c\")\n  * {stays}\n"
        )),
        "{shown}"
    );
    apply(&mut w, &request(&chosen)).unwrap();
    let id: berth_model::id::InstanceId = "web.2.0.1".parse().unwrap();
    assert_eq!(w.records.instances[&id].stage, Stage::Running);
    // A new revision is placed anew anyway.
    let both = first.replace("dga@1.0.0", "dga@2.0.0");
    let shown = text(&plan(&w, &request(&both)).unwrap());
    assert!(!shown.contains("outside"), "{shown}");
}

#[test]
fn several_fleets_are_exported_one_by_one() {
    let mut w = world();
    let export = |w: &World, name: Option<&str>| super::export(w, name.map(|n| n.parse().unwrap()));
    assert_eq!(export(&w, None).unwrap().fleet.as_str(), "default");
    apply(
        &mut w,
        &request("fleet = \"a\"\n[service.one]\nmodel = \"dga\"\n"),
    )
    .unwrap();
    assert_eq!(export(&w, None).unwrap().fleet.as_str(), "a");
    apply(
        &mut w,
        &request("fleet = \"b\"\n[service.two]\nmodel = \"dga\"\n"),
    )
    .unwrap();
    let refused = export(&w, None).unwrap_err();
    assert!(refused.detail.contains("a, b"), "{refused}");
    let names =
        |fleet: Fleet| -> Vec<String> { fleet.services.keys().map(ToString::to_string).collect() };
    assert_eq!(names(export(&w, Some("a")).unwrap()), ["one", "web"]);
    assert_eq!(names(export(&w, Some("b")).unwrap()), ["two", "web"]);
}
