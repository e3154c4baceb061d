//! An API server that is away: nothing is taken for gone, and everything is right again when it is back.

use anyhow::{Result, ensure};
use berth_kubernetes::{Class, Cluster, ClusterState, Verdict};
use kube::api::DeleteParams;

use super::proxy::Proxy;
use super::world::{FOREVER, instance, picture, until, verdict, with_world};

#[test]
fn while_a_cluster_is_away_its_jobs_are_held_and_then_seen_as_they_are() -> Result<()> {
    with_world(|world| async move {
        let proxy = Proxy::to(world.server).await?;
        let cluster = Cluster::start(world.config(proxy.address, "true", FOREVER)?);
        let stays = cluster.create(&instance("web.1.0.1")).await?;
        let goes = cluster.create(&instance("web.1.1.1")).await?;
        for made in [&stays, &goes] {
            verdict(&cluster, &made.name, "running", |v| *v == Verdict::Running).await?;
        }

        proxy.cut();
        picture(&cluster, "away", |p| {
            matches!(p.state, ClusterState::Unreachable { .. })
        })
        .await?;
        let error = cluster.create(&instance("web.1.2.1")).await;
        ensure!(
            error.as_ref().is_err_and(|e| e.class() == Class::Hold),
            "{error:?}"
        );
        world
            .jobs()
            .delete(&goes.name, &DeleteParams::background())
            .await?;
        until("it to be gone", || async {
            Ok(world
                .jobs()
                .get_opt(&goes.name)
                .await?
                .is_none()
                .then_some(()))
        })
        .await?;
        // Held as last seen; and of what was never seen, nothing is concluded.
        let held = cluster.picture().borrow().clone();
        ensure!(held.verdict(&goes.name) == Some(Verdict::Running));
        ensure!(held.verdict("berth-never-1-0-1").is_none());

        proxy.mend();
        picture(&cluster, "back", |p| p.state.is_reachable()).await?;
        verdict(&cluster, &goes.name, "gone", |v| *v == Verdict::Gone).await?;
        let seen = cluster.picture().borrow().clone();
        ensure!(seen.verdict(&stays.name) == Some(Verdict::Running));
        cluster.create(&instance("web.1.2.1")).await?;
        Ok(())
    })
}

#[test]
fn a_new_coordinator_concludes_nothing_before_it_has_seen_all() -> Result<()> {
    with_world(|world| async move {
        let first = world.cluster("true", FOREVER)?;
        let made = first.create(&instance("web.1.0.1")).await?;
        verdict(&first, &made.name, "running", |v| *v == Verdict::Running).await?;
        drop(first);

        let proxy = Proxy::to(world.server).await?;
        proxy.cut();
        let second = Cluster::start(world.config(proxy.address, "true", FOREVER)?);
        picture(&second, "away", |p| {
            matches!(p.state, ClusterState::Unreachable { .. })
        })
        .await?;
        ensure!(second.picture().borrow().verdict(&made.name).is_none());
        proxy.mend();
        let seen = picture(&second, "a whole picture", |p| p.complete).await?;
        ensure!(
            seen.verdict(&made.name) == Some(Verdict::Running),
            "{seen:?}"
        );
        ensure!(seen.jobs[&made.name].uid == made.uid);
        Ok(())
    })
}
