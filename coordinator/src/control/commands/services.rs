//! Deploying, scaling and deleting services.

use std::collections::BTreeMap;

use berth_model::api::{Deploy, rules};
use berth_model::id::ServiceName;
use berth_model::node::RuntimeKind;
use berth_model::pool::POOL_LABEL;
use berth_model::problem::Problem;
use berth_model::service::{Revision, ServiceRecord};

use crate::control::events::Happened;
use crate::control::modelref::{self, Coming, Resolved};
use crate::control::observe::broken;
use crate::control::world::World;

/// Most revisions of one service at a time: they are one record, and a record has to fit into a
/// transaction. Only rollouts started faster than they end get there.
const MAX_REVISIONS: usize = 16;

/// A deploy that was checked against everything: what is left cannot fail.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The service with its new number of instances, without the new revision.
    pub(crate) service: ServiceRecord,
    /// What it shall run; it gets a number only if it is new.
    pub(crate) wanted: Revision,
    /// What has to be done.
    pub(crate) change: Change,
}

/// What a deploy comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// The specification and the number of instances are those that it has.
    Nothing,
    /// Another number of instances than this.
    Scale(u32),
    /// Another specification, so a new revision.
    Revise,
}

/// Creates a service or gives it a new revision; the same specification again makes none.
pub(crate) fn deploy(world: &mut World, deploy: &Deploy) -> Result<ServiceName, Problem> {
    let prepared = prepare(world, deploy, &Coming::default())?;
    Ok(carry_out(world, prepared))
}

/// Checks a deploy, which changes nothing. Versions that are `coming` count as registered.
pub(crate) fn prepare(
    world: &World,
    deploy: &Deploy,
    coming: &Coming,
) -> Result<Prepared, Problem> {
    let model = modelref::resolve(&world.records.models, coming, &deploy.model)?;
    let name = match &deploy.service {
        Some(name) => name.clone(),
        None => ServiceName::new(model.name.as_str())
            .map_err(|e| Problem::invalid(format!("{e}; name the service with --service")))?,
    };
    deploy.check().map_err(Problem::invalid)?;
    check_runtime(world, deploy.runtime.unwrap_or_default())?;
    if world.records.jobs.contains_key(name.as_str()) {
        return Err(Problem::conflict(format!(
            "{name} is the name of a job, which a service cannot have: choose another with --service, or \
             delete the job with `berth job delete {name}`"
        )));
    }
    let old = world.records.services.get(&name);
    if old.is_some_and(|s| s.deleting) {
        return Err(deleting(&name));
    }
    let wanted = revision(world, deploy, &model);
    let mut service = old.cloned().unwrap_or_else(|| ServiceRecord {
        name: name.clone(),
        revisions: BTreeMap::new(),
        replicas: 1,
        deleting: false,
        max_unavailable: 1,
        fleet: None,
        created: world.wall,
        updated: world.wall,
    });
    let before = service.replicas;
    service.replicas = deploy.replicas.unwrap_or(service.replicas);
    service.max_unavailable = deploy.max_unavailable.unwrap_or(service.max_unavailable);
    let change = if !service.current().is_some_and(|r| same(r, &wanted)) {
        Change::Revise
    } else if before == service.replicas {
        Change::Nothing
    } else {
        Change::Scale(before)
    };
    if change == Change::Revise && service.revisions.len() >= MAX_REVISIONS {
        return Err(Problem::conflict(format!(
            "service {name} has {MAX_REVISIONS} revisions on their way in or out already: wait until some \
             are gone (`berth service show {name}`)"
        )));
    }
    Ok(Prepared {
        service,
        wanted,
        change,
    })
}

/// Does what was prepared.
pub(crate) fn carry_out(world: &mut World, prepared: Prepared) -> ServiceName {
    let Prepared {
        mut service,
        wanted,
        change,
    } = prepared;
    tell_allowed(world, &mut service);
    match change {
        Change::Nothing => {}
        Change::Scale(before) => scaled(world, &mut service, before),
        Change::Revise => add_revision(world, &mut service, wanted),
    }
    let name = service.name.clone();
    world.records.services.put(name.clone(), service);
    name
}

/// Tells if another number of instances may be missing during a change than before.
fn tell_allowed(world: &mut World, service: &mut ServiceRecord) {
    let (name, now) = (&service.name, service.max_unavailable);
    let before = world.records.services.get(name).map(|s| s.max_unavailable);
    if let Some(before) = before.filter(|before| *before != now) {
        world.happened(&Happened::ServiceAllowsMissing(name, before, now));
        service.updated = world.wall;
    }
}

/// A runtime that some node reports is the planner's to judge; one that none has and that this
/// version cannot start would wait for ever.
pub(crate) fn check_runtime(world: &World, runtime: RuntimeKind) -> Result<(), Problem> {
    if runtime == RuntimeKind::Kubernetes {
        return check_clusters(world);
    }
    // One that does not work now will again.
    let has = |n: &berth_model::node::NodeRecord| {
        n.facts.runtimes.contains(&runtime) || broken(&n.facts).contains(&runtime)
    };
    if runtime == RuntimeKind::Process || world.records.nodes.values().any(has) {
        return Ok(());
    }
    Err(Problem::invalid(format!(
        "no node has the runtime {runtime}: install it on one (`berth node list` shows what they have), or deploy \
         with --runtime process"
    )))
}

fn check_clusters(world: &World) -> Result<(), Problem> {
    if world.clusters.is_empty() {
        return Err(Problem::invalid(
            "no Kubernetes cluster is configured: add a [[cluster]] to coordinator.toml, or deploy with \
             --runtime process",
        ));
    }
    Ok(())
}

/// The specification that a deploy asks for; it gets a number only if it is new.
fn revision(world: &World, deploy: &Deploy, model: &Resolved) -> Revision {
    // The label makes the pool unless there is a record of that name: the planner's input looks.
    let node_labels = deploy
        .pool
        .iter()
        .map(|pool| (POOL_LABEL.to_owned(), pool.clone()));
    Revision {
        number: 0,
        model: model.name.clone(),
        serial: model.serial,
        version: model.version.clone(),
        digest: model.digest,
        runtime: deploy.runtime.unwrap_or_default(),
        node_labels: node_labels.collect(),
        pool: deploy.pool.clone(),
        spread: deploy.spread.clone(),
        env: deploy.env.clone(),
        replicas: 0,
        created: world.wall,
    }
}

fn same(a: &Revision, b: &Revision) -> bool {
    let plain = |r: &Revision| Revision {
        number: 0,
        replicas: 0,
        created: berth_model::time::Timestamp(0),
        ..r.clone()
    };
    plain(a) == plain(b)
}

fn add_revision(world: &mut World, service: &mut ServiceRecord, mut revision: Revision) {
    let last = world.records.revisions.get(&service.name).copied();
    let known = service.revisions.keys().next_back().copied();
    revision.number = last.unwrap_or(0).max(known.unwrap_or(0)) + 1;
    // Beside an older revision the rollout decides how many it has so far.
    revision.replicas = if service.revisions.is_empty() {
        service.replicas
    } else {
        0
    };
    service.updated = world.wall;
    world
        .records
        .revisions
        .put(service.name.clone(), revision.number);
    world.happened(&Happened::ServiceDeployed(
        &service.name,
        &revision,
        service.replicas,
    ));
    service.revisions.insert(revision.number, revision);
}

fn scaled(world: &mut World, service: &mut ServiceRecord, before: u32) {
    service.updated = world.wall;
    let (name, now) = (service.name.clone(), service.replicas);
    world.happened(&Happened::ServiceScaled(&name, before, now));
}

/// Changes the number of instances; the same number changes nothing.
pub(crate) fn scale(
    world: &mut World,
    name: &ServiceName,
    replicas: u32,
) -> Result<ServiceName, Problem> {
    rules::replicas(replicas).map_err(Problem::invalid)?;
    let mut service = find(world, name)?.clone();
    if service.deleting {
        return Err(deleting(name));
    }
    let before = std::mem::replace(&mut service.replicas, replicas);
    if before != replicas {
        scaled(world, &mut service, before);
        world.records.services.put(name.clone(), service);
    }
    Ok(name.clone())
}

/// Begins to delete; again is no error while it is on its way out.
pub(crate) fn delete(world: &mut World, name: &ServiceName) -> Result<(), Problem> {
    let mut service = find(world, name)?.clone();
    if !service.deleting {
        service.deleting = true;
        service.updated = world.wall;
        world.happened(&Happened::ServiceDeleted(name));
        world.records.services.put(name.clone(), service);
    }
    Ok(())
}

fn deleting(name: &ServiceName) -> Problem {
    Problem::conflict(format!(
        "service {name} is being deleted: wait until `berth service show {name}` no longer finds it, or \
         use another name with --service"
    ))
}

/// A service's record. Errors: 404 with what there is.
pub(crate) fn find<'a>(world: &'a World, name: &ServiceName) -> Result<&'a ServiceRecord, Problem> {
    world.records.services.get(name).ok_or_else(|| {
        let known: Vec<&str> = world
            .records
            .services
            .keys()
            .map(ServiceName::as_str)
            .collect();
        let hint = berth_model::manifest::suggest::did_you_mean(name.as_str(), &known);
        Problem::not_found(format!(
            "there is no service {name}; `berth service list` shows all{hint}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::{model_version, world, world_with_service};

    fn wish(model: &str) -> Deploy {
        Deploy {
            model: model.into(),
            ..Deploy::default()
        }
    }

    #[test]
    fn the_service_is_named_after_the_model_and_the_first_revision_has_all_instances() {
        let mut w = world_with_service();
        let deploy_one = Deploy {
            replicas: Some(3),
            pool: Some("gpu".into()),
            spread: None,
            ..wish("dga")
        };
        let name = deploy(&mut w, &deploy_one).unwrap();
        let service = &w.records.services[&name];
        assert_eq!((name.as_str(), service.replicas), ("dga", 3));
        let revision = service.current().unwrap();
        assert_eq!((revision.number, revision.replicas), (1, 3));
        assert_eq!(revision.node_labels["pool"], "gpu");
    }

    #[test]
    fn only_another_specification_makes_a_revision() {
        let mut w = world_with_service();
        let again = Deploy {
            service: Some("web".parse().unwrap()),
            ..wish("dga@1.0.0")
        };
        w.records.take_changes().unwrap();
        deploy(&mut w, &again).unwrap();
        assert!(w.records.take_changes().unwrap().is_empty());
        let other = Deploy {
            env: [("A".to_owned(), "1".to_owned())].into(),
            ..again
        };
        deploy(&mut w, &other).unwrap();
        let service = &w.records.services["web"];
        let replicas: Vec<u32> = service.revisions.values().map(|r| r.replicas).collect();
        assert_eq!(replicas, [1, 0]);
    }

    #[test]
    fn what_may_be_missing_is_kept_and_makes_no_revision() {
        let mut w = world_with_service();
        let at_most = |n| Deploy {
            service: Some("web".parse().unwrap()),
            max_unavailable: n,
            ..wish("dga@1.0.0")
        };
        deploy(&mut w, &at_most(Some(0))).unwrap();
        deploy(&mut w, &at_most(None)).unwrap();
        let service = &w.records.services["web"];
        assert_eq!((service.max_unavailable, service.revisions.len()), (0, 1));
        let events = w.records.events.values();
        let told = events.filter(|e| e.kind == "service-changed").count();
        assert_eq!(told, 1);
        let refused = deploy(&mut w, &at_most(Some(100_000))).unwrap_err();
        assert_eq!(refused.status, 422);
    }

    #[test]
    fn what_cannot_be_is_refused_and_changes_nothing() {
        let mut w = world_with_service();
        w.records.take_changes().unwrap();
        let docker = Deploy {
            runtime: Some(RuntimeKind::Docker),
            ..wish("dga")
        };
        let many = Deploy {
            replicas: Some(100_000),
            ..wish("dga")
        };
        let env = Deploy {
            env: [("A=B".to_owned(), String::new())].into(),
            ..wish("dga")
        };
        for (bad, code) in [(docker, 422), (many, 422), (env, 422), (wish("nix"), 404)] {
            assert_eq!(deploy(&mut w, &bad).unwrap_err().status, code);
        }
        assert_eq!(
            scale(&mut w, &"x".parse().unwrap(), 1).unwrap_err().status,
            404
        );
        assert!(w.records.take_changes().unwrap().is_empty());
    }

    #[test]
    fn a_node_with_docker_leaves_the_choice_to_the_planner() {
        let mut w = world_with_service();
        let mut node = w.records.nodes["n1"].clone();
        node.facts.runtimes.push(RuntimeKind::Docker);
        w.records.nodes.put(node.name.clone(), node);
        let docker = Deploy {
            runtime: Some(RuntimeKind::Docker),
            ..wish("dga")
        };
        assert!(deploy(&mut w, &docker).is_ok());
    }

    #[test]
    fn models_get_serials_and_never_change() {
        use crate::control::commands::models::register;
        let mut w = world();
        assert_eq!(
            register(&mut w, model_version("m", "1.0.0", 9))
                .unwrap()
                .serial,
            1
        );
        assert_eq!(
            register(&mut w, model_version("m", "1.1.0", 0))
                .unwrap()
                .serial,
            2
        );
        assert_eq!(
            register(&mut w, model_version("m", "1.0.0", 0))
                .unwrap()
                .serial,
            1
        );
        let mut other = model_version("m", "1.0.0", 0);
        other.digest = model_version("x", "1.0.0", 0).digest;
        assert_eq!(register(&mut w, other).unwrap_err().status, 409);
    }
}
