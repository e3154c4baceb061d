//! Why a Pod does not run, or did not end well: in the words of the part that knows.

use anyhow::{Result, ensure};
use berth_kubernetes::{Cluster, Error, Shape, Verdict};
use berth_model::instance::Reason;
use berth_model::time::Span;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use super::world::{FOREVER, World, instance, verdict, with_world, work};

async fn pending(cluster: &Cluster, name: &str) -> Result<Reason> {
    let found = verdict(cluster, name, "a reason", |v| {
        matches!(v, Verdict::Pending { why: Some(_) })
    })
    .await?;
    match found {
        Verdict::Pending { why: Some(why) } => Ok(why),
        other => anyhow::bail!("{other:?}"),
    }
}

async fn ended(cluster: &Cluster, name: &str) -> Result<berth_kubernetes::Ending> {
    let found = verdict(cluster, name, "an end", |v| matches!(v, Verdict::Ended(_))).await?;
    match found {
        Verdict::Ended(end) => Ok(end),
        other => anyhow::bail!("{other:?}"),
    }
}

#[test]
fn an_image_that_cannot_be_pulled_is_told_with_the_cause() -> Result<()> {
    with_world(|world| async move {
        let cluster = world.cluster("true", "true")?;
        let mut absent = instance("web.1.0.1");
        absent.image = Some("127.0.0.1:1/nobody/nothing:1".to_owned());
        let made = cluster.create(&absent).await?;
        let why = pending(&cluster, &made.name).await?;
        ensure!(
            matches!(&why, Reason::Image { image, error }
                if image == "127.0.0.1:1/nobody/nothing:1" && error.contains("connect")),
            "{why:?}"
        );
        let mut nonsense = instance("web.1.1.1");
        nonsense.image = Some("No Such Name".to_owned());
        let made = cluster.create(&nonsense).await?;
        let why = pending(&cluster, &made.name).await?;
        ensure!(
            matches!(&why, Reason::Image { error, .. } if !error.is_empty()),
            "{why:?}"
        );
        Ok(())
    })
}

#[test]
fn what_the_scheduler_says_is_told() -> Result<()> {
    with_world(|world| async move {
        let cluster = world.cluster("true", "true")?;
        let mut huge = instance("web.1.0.1");
        huge.resources.gpus = 9;
        let made = cluster.create(&huge).await?;
        let why = pending(&cluster, &made.name).await?;
        ensure!(
            matches!(&why, Reason::Unschedulable { error } if error.contains("nvidia.com/gpu")),
            "{why:?}"
        );
        Ok(())
    })
}

async fn quota(world: &World, hard: serde_json::Value) -> Result<()> {
    let quotas = Api::<ResourceQuota>::namespaced(world.admin.clone(), &world.namespace);
    let quota = serde_json::from_value(json!({"metadata": {"name": "q"}, "spec": {"hard": hard}}))?;
    quotas.create(&PostParams::default(), &quota).await?;
    super::world::until("the quota to count", || async {
        let counted = quotas.get("q").await?.status.and_then(|s| s.used);
        Ok(counted.filter(|used| !used.is_empty()).map(|_| ()))
    })
    .await
}

#[test]
fn a_quota_that_is_used_up_is_told_for_pods_and_for_jobs() -> Result<()> {
    with_world(|world| async move {
        quota(&world, json!({"pods": "0", "count/jobs.batch": "1"})).await?;
        let cluster = world.cluster("true", "true")?;
        let made = cluster.create(&instance("web.1.0.1")).await?;
        let why = pending(&cluster, &made.name).await?;
        ensure!(
            matches!(&why, Reason::Refused { error } if error.contains("exceeded quota: q")),
            "{why:?}"
        );
        let second = cluster.create(&instance("web.1.1.1")).await;
        ensure!(
            matches!(&second, Err(Error::Quota { words, .. }) if words.contains("count/jobs.batch")),
            "{second:?}"
        );
        Ok(())
    })
}

#[test]
fn memory_that_runs_out_and_crashes_are_told() -> Result<()> {
    with_world(|world| async move {
        let hungry = world.cluster("true", "echo loading; tail /dev/zero")?;
        let made = hungry.create(&instance("web.1.0.1")).await?;
        let end = ended(&hungry, &made.name).await?;
        ensure!(
            matches!(&end.reason, Reason::OutOfMemory { limit: Some(limit), .. } if *limit == 32 << 20)
                && end.exit_code == Some(137),
            "{end:?}"
        );
        let unprepared = world.cluster("echo no package here; exit 7", "true")?;
        let made = unprepared.create(&instance("web.1.1.1")).await?;
        let end = ended(&unprepared, &made.name).await?;
        let prepare = Reason::Exited {
            process: "prepare".to_owned(),
            code: 7,
        };
        ensure!(
            end.reason == prepare && end.last_lines == ["no package here"],
            "{end:?}"
        );

        let mut bare = instance("web.1.2.1");
        bare.image = Some(hungry.config().images.binary.clone());
        let killed = world.cluster("true", "kill -SEGV $$")?;
        let made = killed.create(&bare).await?;
        let end = ended(&killed, &made.name).await?;
        // As process 1 of its container it cannot be ended by its own signal, unless the kernel insists.
        ensure!(
            matches!(
                end.reason,
                Reason::Completed | Reason::Signaled { .. } | Reason::Exited { .. }
            ),
            "{end:?}"
        );
        Ok(())
    })
}

#[test]
fn a_deadline_ends_a_job() -> Result<()> {
    with_world(|world| async move {
        let cluster = world.cluster("true", FOREVER)?;
        let shape = Shape::Counted {
            completions: 1,
            parallelism: 1,
            retries: 3,
            deadline: Some(Span::millis(1500)),
        };
        let made = cluster.create(&work("job:slow@1", shape)).await?;
        let end = ended(&cluster, &made.name).await?;
        ensure!(
            end.reason == Reason::DeadlineExceeded { after_ms: 2000 },
            "{end:?}"
        );
        Ok(())
    })
}

#[test]
fn the_pod_is_confined() -> Result<()> {
    with_world(|world| async move {
        let probe = "id -u; touch /x 2>/dev/null || echo root is read-only; touch /tmp/x && touch /berth/data/x && \
                     echo writable; ls /var/run/secrets 2>/dev/null || echo no token; env | cat; exit 9";
        let cluster = world.cluster("true", probe)?;
        let made = cluster.create(&instance("web.1.0.1")).await?;
        let end = ended(&cluster, &made.name).await?;
        let seen = cluster.picture().borrow().jobs[&made.name].clone();
        let lines = cluster.tail(&seen.pods[0].name, "module", 100).await?;
        for wanted in ["65532", "root is read-only", "writable", "no token"] {
            ensure!(lines.iter().any(|l| l == wanted), "{wanted}: {lines:?}");
        }
        let told = |name: &str| {
            lines
                .iter()
                .find_map(|l| l.strip_prefix(&format!("{name}=")))
        };
        ensure!(
            told("BERTH_JOB_UID") == Some(made.uid.as_str()),
            "{lines:?}"
        );
        ensure!(
            told("POD_UID") == Some(seen.pods[0].uid.as_str()),
            "{lines:?}"
        );
        ensure!(
            told("POD_IP").is_some() && told("BERTH_CLUSTER") == Some("prod"),
            "{lines:?}"
        );
        ensure!(
            !lines.iter().any(|l| l.contains("BERTH_POD_TOKEN")
                || l.contains("_SERVICE_HOST=") && !l.starts_with("KUBERNETES_")),
            "{lines:?}"
        );
        ensure!(end.exit_code == Some(9), "{end:?}");
        Ok(())
    })
}
