//! The example's Role is all that is used, and whatever is missing of it is named.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use berth_kubernetes::{ClusterState, Error, Verdict};
use k8s_openapi::api::rbac::v1::Role;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::world::{FOREVER, PATIENCE, World, instance, picture, verdict, with_world};

async fn without(world: &World, verb: &str, resource: &str) -> Result<()> {
    let roles = Api::<Role>::namespaced(world.admin.clone(), &world.namespace);
    let mut role = roles.get("berth").await?;
    for rule in role.rules.iter_mut().flatten() {
        if rule.resources.iter().flatten().any(|r| r == resource) {
            rule.verbs.retain(|v| v != verb);
            if rule.verbs.is_empty() {
                rule.verbs.push("patch".to_owned());
            }
        }
    }
    let patch = Patch::Merge(json!({"rules": role.rules}));
    roles
        .patch("berth", &PatchParams::default(), &patch)
        .await?;
    Ok(())
}

async fn with_all(world: &World, role: &Role) -> Result<()> {
    let roles = Api::<Role>::namespaced(world.admin.clone(), &world.namespace);
    let patch = Patch::Merge(json!({"rules": role.rules}));
    roles
        .patch("berth", &PatchParams::default(), &patch)
        .await?;
    Ok(())
}

fn names(error: &Error, verb: &str, resource: &str) -> bool {
    matches!(error, Error::Forbidden { verb: v, resource: r, .. } if v == verb && r == resource)
        && error.to_string().contains("rbac.yaml")
}

#[test]
fn every_right_of_the_example_is_used_and_no_other() -> Result<()> {
    with_world(|world| async move {
        let cluster = world.cluster("true", FOREVER)?;
        let work = instance("web.1.0.1");
        let made = cluster.create(&work).await?;
        cluster.create(&work).await?;
        verdict(&cluster, &made.name, "running", |v| *v == Verdict::Running).await?;
        let pod = cluster.picture().borrow().jobs[&made.name].pods[0]
            .name
            .clone();
        cluster.tail(&pod, "module", 1).await?;
        picture(&cluster, "all watches", |p| p.state.is_reachable()).await?;
        super::world::until("the watch of events", || async {
            let all = cluster.requests();
            Ok(all
                .iter()
                .any(|r| (r.verb, r.resource) == ("watch", "events"))
                .then_some(()))
        })
        .await?;
        cluster
            .delete_and_wait(&made.name, &made.uid, PATIENCE)
            .await?;

        let used: BTreeSet<(String, String)> = cluster
            .requests()
            .iter()
            .map(|r| (r.resource.to_owned(), r.verb.to_owned()))
            .collect();
        let role = Api::<Role>::namespaced(world.admin.clone(), &world.namespace)
            .get("berth")
            .await?;
        let mut granted = BTreeSet::new();
        for rule in role.rules.context("rules")? {
            for resource in rule.resources.iter().flatten() {
                granted.extend(
                    rule.verbs
                        .iter()
                        .map(|verb| (resource.clone(), verb.clone())),
                );
            }
        }
        ensure!(used == granted, "used {used:?}, granted {granted:?}");
        Ok(())
    })
}

#[test]
fn a_missing_right_is_named() -> Result<()> {
    with_world(|world| async move {
        let roles = Api::<Role>::namespaced(world.admin.clone(), &world.namespace);
        let whole = roles.get("berth").await?;
        let cluster = world.cluster("true", FOREVER)?;
        let made = cluster.create(&instance("web.1.0.1")).await?;
        picture(&cluster, "reachable", |p| p.state.is_reachable()).await?;

        without(&world, "create", "jobs").await?;
        super::world::until("the right to be missing", || async {
            match cluster.create(&instance("web.1.1.1")).await {
                Err(error) => {
                    ensure!(names(&error, "create", "jobs"), "{error}");
                    Ok(Some(()))
                }
                Ok(_) => Ok(None),
            }
        })
        .await?;
        without(&world, "delete", "jobs").await?;
        super::world::until("the right to be missing", || async {
            match cluster.delete(&made.name, &made.uid).await {
                Err(error) => {
                    ensure!(names(&error, "delete", "jobs"), "{error}");
                    Ok(Some(()))
                }
                Ok(()) => Ok(None),
            }
        })
        .await?;

        for (verb, resource) in [
            ("list", "jobs"),
            ("watch", "pods"),
            ("list", "pods"),
            ("watch", "jobs"),
        ] {
            with_all(&world, &whole).await?;
            without(&world, verb, resource).await?;
            // A new watch asks at once; one that runs is asked again with the next request.
            let fresh = world.cluster("true", "true")?;
            picture(&fresh, "the missing right", |p| match &p.state {
                ClusterState::Unreachable { why, .. } => names(why, verb, resource),
                _ => false,
            })
            .await?;
            with_all(&world, &whole).await?;
            picture(&fresh, "reachable again", |p| p.state.is_reachable()).await?;
        }
        without(&world, "list", "events").await?;
        let fresh = world.cluster("true", "true")?;
        picture(&fresh, "poorer reasons", |p| match &p.state {
            ClusterState::Reachable {
                lacking: Some(why), ..
            } => names(why, "list", "events"),
            _ => false,
        })
        .await?;
        Ok(())
    })
}
