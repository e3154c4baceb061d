//! Jobs are made, adopted, run, deleted; what is done behind our back is noticed.

use anyhow::{Context, Result, ensure};
use berth_kubernetes::{Error, Outcome, Shape, Verdict};
use berth_model::instance::Reason;
use kube::api::DeleteParams;

use super::proxy::Proxy;
use super::world::{FOREVER, PATIENCE, instance, picture, until, verdict, with_world, work};
use berth_kubernetes::Cluster;

#[test]
fn an_instance_is_made_once_runs_and_is_deleted_with_its_pod() -> Result<()> {
    with_world(|world| async move {
        let cluster = world.cluster("true", FOREVER)?;
        let work = instance("web.1.0.1");
        let made = cluster.create(&work).await?;
        ensure!(made.name == "berth-web-1-0-1" && !made.adopted);
        let again = cluster.create(&work).await?;
        ensure!(again.adopted && again.uid == made.uid);

        verdict(&cluster, &made.name, "running", |v| *v == Verdict::Running).await?;
        let seen = picture(&cluster, "an address", |p| {
            p.jobs
                .get(&made.name)
                .is_some_and(|j| j.pods.iter().any(|pod| pod.ip.is_some()))
        })
        .await?;
        let seen = &seen.jobs[&made.name];
        ensure!(
            seen.uid == made.uid && seen.work.as_ref() == Some(&work.id) && seen.pods.len() == 1
        );
        let lines = cluster.tail(&seen.pods[0].name, "module", 10).await?;
        ensure!(lines == ["ready"], "{lines:?}");

        // The whole life of a one-Pod job, with a second create and a tail: shared watches are not counted.
        let gone = cluster
            .delete_and_wait(&made.name, &made.uid, PATIENCE)
            .await?;
        ensure!(gone.pods == [seen.pods[0].name.clone()]);
        ensure!(
            world
                .jobs()
                .list(&Default::default())
                .await?
                .items
                .is_empty()
        );
        ensure!(
            world
                .pods()
                .list(&Default::default())
                .await?
                .items
                .is_empty()
        );
        let requests = cluster.requests();
        let sent: u64 = requests
            .iter()
            .filter(|r| !["list", "watch"].contains(&r.verb))
            .map(|r| r.count)
            .sum();
        ensure!(sent == 5, "{requests:?}");
        ensure!(
            requests
                .iter()
                .any(|r| (r.verb, r.resource, r.outcome) == ("watch", "jobs", Outcome::Ok))
        );
        // Once more is no error.
        cluster.delete(&made.name, &made.uid).await?;
        Ok(())
    })
}

#[test]
fn another_fleets_job_is_never_taken_for_ours() -> Result<()> {
    with_world(|world| async move {
        let ours = world.cluster("true", FOREVER)?;
        let mut config = world.config(world.server, "true", FOREVER)?;
        config.fleet = "fleet-2".to_owned();
        let theirs = Cluster::start(config);
        let made = theirs.create(&instance("web.1.0.1")).await?;
        let refused = ours.create(&instance("web.1.0.1")).await;
        ensure!(
            matches!(&refused, Err(Error::NameTaken { whose, .. }) if whose.contains("fleet-2")),
            "{refused:?}"
        );
        picture(&ours, "a list", |p| p.complete).await?;
        ensure!(ours.picture().borrow().jobs.is_empty());
        // Nor deleted: the UID is not that of any Job of ours.
        ours.delete(&made.name, "00000000-0000-0000-0000-000000000000")
            .await?;
        ensure!(world.jobs().get_opt(&made.name).await?.is_some());
        Ok(())
    })
}

#[test]
fn a_create_whose_answer_is_lost_makes_no_second_job() -> Result<()> {
    with_world(|world| async move {
        let proxy = Proxy::to(world.server).await?;
        let cluster = Cluster::start(world.config(proxy.address, "true", FOREVER)?);
        picture(&cluster, "a list", |p| p.complete).await?;
        until("all watches to run", || async {
            let all = cluster.requests();
            let watches = all
                .iter()
                .filter(|r| (r.verb, r.outcome) == ("watch", Outcome::Ok));
            Ok((watches.count() == 3).then_some(()))
        })
        .await?;
        // What is swallowed may be a new connection's handshake instead of the answer; then once more.
        for n in 1..10 {
            // This one has a connection made that stays for the next.
            cluster.create(&instance("web.1.0.1")).await?;
            proxy.swallow_next_answer();
            let made = cluster.create(&instance(&format!("web.1.{n}.1"))).await?;
            ensure!(proxy.swallowed() == n);
            let all = world.jobs().list(&Default::default()).await?.items;
            ensure!(all.len() == n + 1, "{} Jobs for {}", all.len(), n + 1);
            let uid = all.iter().find_map(|job| {
                (job.metadata.name.as_ref() == Some(&made.name)).then(|| job.metadata.uid.clone())
            });
            ensure!(uid.flatten() == Some(made.uid), "another Job's UID");
            if made.adopted {
                return Ok(());
            }
        }
        anyhow::bail!("no create of ten reached the API server without its answer coming back")
    })
}

#[test]
fn a_job_is_counted_and_retried_by_kubernetes() -> Result<()> {
    with_world(|world| async move {
        let cluster = world.cluster("true", "echo scored")?;
        let shape = |completions, retries| Shape::Counted {
            completions,
            parallelism: 2,
            retries,
            deadline: None,
        };
        let good = cluster.create(&work("job:good@1", shape(3, 0))).await?;
        let ended = verdict(&cluster, &good.name, "an end", |v| {
            matches!(v, Verdict::Ended(_))
        })
        .await?;
        ensure!(
            matches!(&ended, Verdict::Ended(end) if end.reason == Reason::Completed),
            "{ended:?}"
        );
        ensure!(cluster.picture().borrow().jobs[&good.name].succeeded == 3);

        let cluster = world.cluster("true", "echo the model is odd; exit 3")?;
        let bad = cluster.create(&work("job:bad@1", shape(1, 1))).await?;
        let ended = verdict(&cluster, &bad.name, "an end", |v| {
            matches!(v, Verdict::Ended(_))
        })
        .await?;
        let Verdict::Ended(end) = ended else {
            anyhow::bail!("{ended:?}")
        };
        let exited = Reason::Exited {
            process: "module".to_owned(),
            code: 3,
        };
        ensure!(end.reason == exited && end.exit_code == Some(3), "{end:?}");
        ensure!(end.last_lines == ["the model is odd"], "{end:?}");
        let seen = cluster.picture().borrow().jobs[&bad.name].clone();
        ensure!(seen.failed == 2 && seen.pods.len() == 2, "{seen:?}");
        // Pods of an ended job stay until it is deleted, and their logs with them.
        ensure!(cluster.tail(&seen.pods[0].name, "module", 5).await? == ["the model is odd"]);
        Ok(())
    })
}

#[test]
fn what_is_deleted_behind_our_back_is_noticed() -> Result<()> {
    with_world(|world| async move {
        let cluster = world.cluster("true", FOREVER)?;
        let job = cluster.create(&instance("web.1.0.1")).await?;
        let pod = cluster.create(&instance("web.1.1.1")).await?;
        for made in [&job, &pod] {
            verdict(&cluster, &made.name, "running", |v| *v == Verdict::Running).await?;
        }
        world
            .jobs()
            .delete(&job.name, &DeleteParams::background())
            .await?;
        verdict(&cluster, &job.name, "gone", |v| *v == Verdict::Gone).await?;

        let name = cluster.picture().borrow().jobs[&pod.name].pods[0]
            .name
            .clone();
        world.pods().delete(&name, &DeleteParams::default()).await?;
        let ended = verdict(&cluster, &pod.name, "an end", |v| {
            matches!(v, Verdict::Ended(_))
        })
        .await?;
        let Verdict::Ended(end) = ended else {
            anyhow::bail!("{ended:?}")
        };
        ensure!(
            matches!(&end.reason, Reason::Deleted { what } if what.contains(&name)),
            "{end:?}"
        );
        cluster
            .delete_and_wait(&pod.name, &pod.uid, PATIENCE)
            .await
            .context("the Pod that Kubernetes made in its place")?;
        Ok(())
    })
}

/// 200 give the same two requests each, but the garbage collector of the cluster needs 100 s for them.
const MANY: usize = 40;

#[test]
fn many_at_once_cost_two_requests_each() -> Result<()> {
    with_world(|world| async move {
        let cluster = world.cluster("true", FOREVER)?;
        picture(&cluster, "a list", |p| p.complete).await?;
        let begun = std::time::Instant::now();
        let all = (0..MANY).map(|n| {
            let cluster = cluster.clone();
            async move {
                let mut work = instance(&format!("web.1.{n}.1"));
                // Nothing that this cluster could run: it is about the API server.
                work.resources.gpus = 1000;
                cluster.create(&work).await
            }
        });
        let made = futures_util::future::try_join_all(all).await?;
        let created = begun.elapsed();
        let seen = picture(&cluster, "all of them with their Pods", |p| {
            p.jobs.len() == MANY && p.jobs.values().all(|job| job.pods.len() == 1)
        })
        .await?;
        for made in &made {
            ensure!(seen.jobs[&made.name].uid == made.uid && !made.adopted);
        }
        let all = made
            .iter()
            .map(|made| cluster.delete_and_wait(&made.name, &made.uid, 2 * PATIENCE));
        futures_util::future::try_join_all(all).await?;
        let sent: u64 = cluster
            .requests()
            .iter()
            .filter(|r| !["list", "watch"].contains(&r.verb))
            .map(|r| r.count)
            .sum();
        eprintln!(
            "{MANY} created in {created:?}, gone after {:?}, {sent} requests",
            begun.elapsed()
        );
        // The aim is six; a few may be asked for again by a busy API server.
        ensure!(
            (2 * MANY..3 * MANY).contains(&usize::try_from(sent)?),
            "{:?}",
            cluster.requests()
        );
        Ok(())
    })
}
