//! Deploying, scaling and deleting services.

use std::collections::BTreeMap;

use berth_model::api::Deploy;
use berth_model::id::ServiceName;
use berth_model::node::RuntimeKind;
use berth_model::problem::Problem;
use berth_model::service::{ModelVersion, Revision, ServiceRecord};

use crate::control::events::Happened;
use crate::control::modelref;
use crate::control::observe::broken;
use crate::control::world::World;

/// Most instances of one service.
const MAX_REPLICAS: u32 = 1_000;
/// Most bytes of environment variables: they go into every desired set of the service's nodes.
const MAX_ENV_BYTES: usize = 32 * 1024;
/// Most revisions of one service at a time: they are one record, and a record has to fit into a
/// transaction. Only rollouts started faster than they end get there.
const MAX_REVISIONS: usize = 16;

/// Creates a service or gives it a new revision; the same specification again makes none.
pub(crate) fn deploy(world: &mut World, deploy: &Deploy) -> Result<ServiceName, Problem> {
    let model = modelref::resolve(&world.records.models, &deploy.model)?.clone();
    let name = match &deploy.service {
        Some(name) => name.clone(),
        None => ServiceName::new(model.name.as_str())
            .map_err(|e| Problem::invalid(format!("{e}; name the service with --service")))?,
    };
    check(world, deploy)?;
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
        created: world.wall,
        updated: world.wall,
    });
    let before = service.replicas;
    service.replicas = deploy.replicas.unwrap_or(service.replicas);
    if service.current().is_some_and(|r| same(r, &wanted)) {
        if before != service.replicas {
            scaled(world, &mut service, before);
        }
    } else if service.revisions.len() >= MAX_REVISIONS {
        return Err(Problem::conflict(format!(
            "service {name} has {MAX_REVISIONS} revisions on their way in or out already: wait until some              are gone (`berth service show {name}`)"
        )));
    } else {
        add_revision(world, &mut service, wanted);
    }
    world.records.services.put(name.clone(), service);
    Ok(name)
}

fn check(world: &World, deploy: &Deploy) -> Result<(), Problem> {
    check_replicas(deploy.replicas)?;
    check_environment(&deploy.env)?;
    check_pool(deploy.pool.as_deref())?;
    check_runtime(world, deploy.runtime.unwrap_or_default())
}

/// Refuses variables that no process can have, and too many.
pub(super) fn check_environment(env: &BTreeMap<String, String>) -> Result<(), Problem> {
    let bytes: usize = env.iter().map(|(k, v)| k.len() + v.len()).sum();
    if bytes > MAX_ENV_BYTES {
        return Err(Problem::invalid(format!(
            "the environment variables take {bytes} bytes; at most {MAX_ENV_BYTES} are allowed: put large \
             values into the package"
        )));
    }
    let bad = |k: &&String| k.is_empty() || k.contains(['=', '\0']);
    let (names, values) = (env.keys(), env.values());
    if let Some(name) = names.clone().find(bad) {
        return Err(Problem::invalid(format!(
            "{name:?} cannot be the name of an environment variable"
        )));
    }
    if values.clone().any(|v| v.contains('\0')) {
        return Err(Problem::invalid(
            "an environment variable's value contains a zero byte",
        ));
    }
    Ok(())
}

/// A pool is a label, and as long as any label may be.
pub(super) fn check_pool(pool: Option<&str>) -> Result<(), Problem> {
    if pool.is_some_and(|p| p.is_empty() || p.len() > 63) {
        return Err(Problem::invalid(
            "a pool's name has 1 to 63 characters: choose with --pool NAME, or leave it out",
        ));
    }
    Ok(())
}

fn check_replicas(replicas: Option<u32>) -> Result<(), Problem> {
    match replicas {
        Some(n) if n > MAX_REPLICAS => Err(Problem::invalid(format!(
            "{n} instances are more than a service may have ({MAX_REPLICAS})"
        ))),
        _ => Ok(()),
    }
}

/// A runtime that some node reports is the planner's to judge; one that none has and that this
/// version cannot start would wait for ever.
pub(super) fn check_runtime(world: &World, runtime: RuntimeKind) -> Result<(), Problem> {
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
fn revision(world: &World, deploy: &Deploy, model: &ModelVersion) -> Revision {
    // A pool is a label until fleets declare pools.
    let node_labels = deploy
        .pool
        .iter()
        .map(|pool| ("pool".to_owned(), pool.clone()));
    Revision {
        number: 0,
        model: model.name.clone(),
        serial: model.serial,
        version: model.version.clone(),
        digest: model.digest,
        runtime: deploy.runtime.unwrap_or_default(),
        node_labels: node_labels.collect(),
        pool: deploy.pool.clone(),
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
    check_replicas(Some(replicas))?;
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
            "there is no service {name}{hint}; `berth service list` shows all"
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
            service: None,
            replicas: None,
            runtime: None,
            pool: None,
            env: BTreeMap::new(),
        }
    }

    #[test]
    fn the_service_is_named_after_the_model_and_the_first_revision_has_all_instances() {
        let mut w = world_with_service();
        let deploy_one = Deploy {
            replicas: Some(3),
            pool: Some("gpu".into()),
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
