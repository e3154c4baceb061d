//! Kubernetes end to end: the real coordinator, gateway and Pods' agents on a real cluster.

use std::process::Output;

use anyhow::{Context, Result, ensure};
use berth_model::api::{JobStatus, JobView, ServiceView};
use berth_model::instance::Reason;
use berth_tests::{Cluster, Load, Mode, Options, kubeconfig, skip, stage, until};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};

const MODULE: &str = env!("CARGO_BIN_EXE_test-module");

/// A Berth with the cluster and no nodes, and the cluster itself.
struct World {
    berth: Cluster,
    jobs: Api<Job>,
    pods: Api<Pod>,
}

impl World {
    /// None where there is no cluster, which is told as a skip.
    async fn start() -> Result<Option<Self>> {
        let Some(path) = kubeconfig() else {
            skip("kubernetes", "BERTH_TEST_KUBECONFIG names no cluster")?;
            return Ok(None);
        };
        // Whatever was installed first stays; all of them are the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let file = Kubeconfig::read_from(path)?;
        let config =
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        let client = kube::Client::try_from(config)?;
        let mut options = Options::nodes(0);
        options.kubernetes = true;
        options.coordinator = "drain_deadline = \"5s\"\n".to_owned();
        let berth = Cluster::start(options, MODULE).await?;
        let world = Self {
            berth,
            jobs: Api::namespaced(client.clone(), "default"),
            pods: Api::namespaced(client, "default"),
        };
        until("the cluster to be in reach", || async {
            let list = world.berth.cli_text(&["cluster", "list"])?;
            Ok((list.contains("ready"), list))
        })
        .await?;
        Ok(Some(world))
    }

    /// Deploys the test module, as so many instances, under a name that no other test uses.
    async fn deploy(&self, name: &str, mode: Mode, replicas: u32) -> Result<()> {
        self.berth.push(name, "1.0.0", mode)?;
        let replicas = replicas.to_string();
        let args = [
            "deploy",
            name,
            "--runtime",
            "kubernetes",
            "--replicas",
            &replicas,
        ];
        self.berth.cli_text(&args)?;
        Ok(())
    }

    async fn service(&self, name: &str) -> Result<ServiceView> {
        self.berth.client.service(name).await
    }

    async fn job(&self, name: &str) -> Result<JobView> {
        let text = self.berth.cli_text(&["job", "show", name, "-o", "json"])?;
        Ok(serde_json::from_str(&text)?)
    }

    /// The names of the Jobs whose name begins so.
    async fn jobs_of(&self, prefix: &str) -> Result<Vec<String>> {
        let list = self.jobs.list(&ListParams::default()).await?;
        let names = list.into_iter().filter_map(|job| job.metadata.name);
        Ok(names.filter(|name| name.starts_with(prefix)).collect())
    }

    async fn pods_of(&self, prefix: &str) -> Result<Vec<String>> {
        let list = self.pods.list(&ListParams::default()).await?;
        let names = list.into_iter().filter_map(|pod| pod.metadata.name);
        Ok(names.filter(|name| name.starts_with(prefix)).collect())
    }

    /// Ends a test: deletes the service and looks that nothing of it is left in the cluster.
    async fn leave_nothing(&self, service: &str) -> Result<()> {
        self.berth
            .cli_text(&["service", "delete", service, "--wait"])?;
        let prefix = format!("berth-{service}-");
        let left = (self.jobs_of(&prefix).await?, self.pods_of(&prefix).await?);
        ensure!(left.0.is_empty() && left.1.is_empty(), "left: {left:?}");
        Ok(())
    }
}

/// A name that nothing of an earlier run has.
fn named(what: &str) -> String {
    format!("{what}-{:x}", std::process::id())
}

fn ids(view: &ServiceView) -> Vec<String> {
    let instances = view.instances.iter().filter(|i| i.status.reason.is_none());
    instances.map(|i| i.status.id.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_survives_what_is_done_to_its_pods_jobs_and_coordinator() -> Result<()> {
    let Some(mut world) = World::start().await? else {
        return Ok(());
    };
    let name = named("pods");
    let name = name.as_str();
    world.deploy(name, Mode::Good, 2).await?;
    world.berth.wait_ready(name, 2).await?;
    world.berth.wait_serving(name).await?;
    let load = Load::start(&world.berth.client, name, 2, 0);
    load.pass(20).await?;

    // The coordinator is killed: traffic goes on and no Pod is made anew.
    let before = ids(&world.service(name).await?);
    world.berth.coordinator.kill();
    load.pass(20).await?;
    world.berth.coordinator.restart()?;
    world.berth.wait_ready(name, 2).await?;
    assert_eq!(ids(&world.service(name).await?), before);
    load.pass(20).await?;

    // Somebody deletes a Pod: its drain is the agent's ordered stop, its place gets another attempt.
    let pod = world
        .pods_of(&format!("berth-{name}-1-0-"))
        .await?
        .remove(0);
    world.pods.delete(&pod, &DeleteParams::default()).await?;
    replaced(&world, name, "1.0.1", "1.0.2").await?;
    // Somebody deletes a Job.
    let job = world
        .jobs_of(&format!("berth-{name}-1-1-"))
        .await?
        .remove(0);
    world.jobs.delete(&job, &DeleteParams::background()).await?;
    replaced(&world, name, "1.1.1", "1.1.2").await?;
    let events = world.berth.client.events().await?;
    let told = |what: &str| events.iter().any(|e| e.message.contains(what));
    assert!(told(&format!("Pod {pod} was deleted")), "{events:#?}");

    load.pass(20).await?;
    let outcome = load.end().await?;
    // A Pod that somebody else deletes ends without the gateways having let go of it.
    ensure!(outcome.failed.len() <= 4, "{:?}", outcome.failed);
    world.leave_nothing(name).await
}

async fn replaced(world: &World, name: &str, old: &str, new: &str) -> Result<()> {
    until("another attempt", || async {
        let view = world.service(name).await?;
        let ids = ids(&view);
        let has = |slot: &str| ids.contains(&format!("{name}.{slot}"));
        let done = has(new) && !has(old);
        Ok((done && view.ready == 2, view))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_is_told_with_its_last_lines_and_tried_again_under_a_new_name() -> Result<()> {
    let Some(world) = World::start().await? else {
        return Ok(());
    };
    let name = named("crash");
    let name = name.as_str();
    world.deploy(name, Mode::Exit, 1).await?;
    until("a second attempt that crashed as well", || async {
        let view = world.service(name).await?;
        let crashed = view.instances.iter().any(|i| {
            let code = matches!(i.status.reason, Some(Reason::Exited { code: 3, .. }));
            let last = i.status.last_lines.iter();
            let said = last.clone().any(|l| l.contains("cannot find my weights"));
            code && said && i.status.id.attempt >= 2
        });
        Ok((crashed, view))
    })
    .await?;
    let shown = world.berth.cli_text(&["service", "show", name])?;
    ensure!(shown.contains("module exited with code 3"), "{shown}");
    ensure!(shown.contains("cannot find my weights"), "{shown}");
    let logs = world.berth.cli_text(&["logs", &format!("{name}.1.0.1")])?;
    ensure!(logs.contains("cannot find my weights"), "{logs}");
    world.leave_nothing(name).await
}

/// Deploys the test module with other lines in its manifest, and waits for a reason.
async fn waits_for(name: &str, manifest: &[(&str, &str)], reason: &str) -> Result<()> {
    let Some(world) = World::start().await? else {
        return Ok(());
    };
    let name = named(name);
    let name = name.as_str();
    let dir = world.berth.home().join("package");
    stage(&dir, MODULE.as_ref(), name, "1.0.0", Mode::Good)?;
    let file = dir.join("berth.toml");
    let mut text = std::fs::read_to_string(&file)?;
    for (what, with) in manifest {
        text = text.replace(what, with);
    }
    std::fs::write(&file, text)?;
    world.berth.push_folder(&dir)?;
    world
        .berth
        .cli_text(&["deploy", name, "--runtime", "kubernetes"])?;
    until(reason, || async {
        let shown = world.berth.cli_text(&["service", "show", name])?;
        Ok((shown.contains(reason), shown))
    })
    .await?;
    world.leave_nothing(name).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_cannot_be_pulled_is_told() -> Result<()> {
    let image = "[module]\nimage = \"127.0.0.1:1/none:1\"\n";
    waits_for("noimage", &[("[module]\n", image)], "127.0.0.1:1/none:1").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_fits_nowhere_is_told_in_the_schedulers_words() -> Result<()> {
    let greedy = "[resources]\ncpu = 900\n[module]\n";
    waits_for("nofit", &[("[module]\n", greedy)], "Insufficient cpu").await
}

/// A job whose tasks do as their environment says.
struct Jobs {
    world: World,
}

const TASK: &str = r#"#!/bin/sh
echo "task $BERTH_JOB_INDEX begins"
if [ -n "$CRASH" ]; then echo "no such column: score" >&2; exit 3; fi
if [ -n "$GREEDY" ]; then exec python3 -c "x = bytearray(512 << 20); x[::4096] = b'1' * len(x[::4096])"; fi
sleep "${PAUSE:-0}"
tr a-z A-Z < "$BERTH_JOB_INPUT" > "$BERTH_JOB_OUTPUT"
echo "task $BERTH_JOB_INDEX ends"
"#;

impl Jobs {
    async fn start() -> Result<Option<Self>> {
        use std::os::unix::fs::PermissionsExt;
        let Some(world) = World::start().await? else {
            return Ok(None);
        };
        let dir = world.berth.home().join("package");
        stage(&dir, MODULE.as_ref(), "upper", "1.0.0", Mode::Good)?;
        let task = dir.join("bin/task");
        std::fs::write(&task, TASK)?;
        std::fs::set_permissions(&task, std::fs::Permissions::from_mode(0o755))?;
        let file = dir.join("berth.toml");
        let text = std::fs::read_to_string(&file)?;
        let more = "\n[job]\ncommand = [\"bin/task\"]\n[resources]\nmemory = \"128MiB\"\n";
        std::fs::write(&file, text + more)?;
        world.berth.push_folder(&dir)?;
        Ok(Some(Self { world }))
    }

    fn input(&self, lines: usize) -> Result<(String, String)> {
        let text: String = (0..lines)
            .map(|n| format!("line {n} of the input\n"))
            .collect();
        let path = self.world.berth.home().join("input.txt");
        std::fs::write(&path, &text)?;
        Ok((path.display().to_string(), text.to_uppercase()))
    }

    fn run(&self, name: &str, args: &[&str]) -> Result<Output> {
        let (input, _) = self.input(100)?;
        let mut all = vec!["job", "run", "upper", "--runtime", "kubernetes"];
        all.extend(["--name", name, "--input", &input]);
        all.extend(args);
        self.world.berth.cli(&all)
    }

    async fn delete(&self, name: &str) -> Result<()> {
        let said = self.world.berth.cli_text(&["job", "delete", name])?;
        ensure!(said.contains("is gone"), "{said}");
        let prefix = format!("berth-{name}-");
        let world = &self.world;
        let left = (world.jobs_of(&prefix).await?, world.pods_of(&prefix).await?);
        ensure!(left.0.is_empty() && left.1.is_empty(), "left: {left:?}");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_neither_lost_nor_doubled_when_the_coordinator_dies() -> Result<()> {
    let Some(mut jobs) = Jobs::start().await? else {
        return Ok(());
    };
    let name = named("upper-kill");
    let name = name.as_str();
    let args = [
        "--completions",
        "3",
        "--parallelism",
        "3",
        "--env",
        "PAUSE=4",
    ];
    let begun = jobs.run(name, &args)?;
    ensure!(begun.status.success(), "{begun:?}");
    until("a task that works", || async {
        let view = jobs.world.job(name).await?;
        Ok((view.running > 0, view))
    })
    .await?;
    jobs.world.berth.coordinator.kill();
    jobs.world.berth.coordinator.restart()?;
    until("the end", || async {
        let view = jobs.world.job(name).await;
        let done = matches!(&view, Ok(view) if view.state == JobStatus::Succeeded);
        Ok((done, view))
    })
    .await?;
    let view = jobs.world.job(name).await?;
    assert_eq!((view.done, view.failed), (3, 0), "{view:?}");
    assert_eq!(
        jobs.world.jobs_of(&format!("berth-{name}-")).await?.len(),
        1
    );
    let output = jobs.world.berth.cli_text(&["job", "output", name])?;
    let (_, wanted) = jobs.input(100)?;
    assert_eq!(output, wanted);
    // Every line of every Pod, long after they ended.
    let logs = jobs.world.berth.cli_text(&["logs", name])?;
    for index in 0..3 {
        for word in ["begins", "ends"] {
            let line = format!("task {index} {word}");
            assert_eq!(logs.matches(&line).count(), 1, "{line}: {logs}");
        }
    }
    jobs.delete(name).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_fails_says_why_and_the_cli_exits_with_it() -> Result<()> {
    let Some(jobs) = Jobs::start().await? else {
        return Ok(());
    };
    let name = named("upper-crash");
    let name = name.as_str();
    let args = ["--retries", "1", "--follow", "--env", "CRASH=1"];
    let ended = jobs.run(name, &args)?;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    ensure!(said.contains("exited with code 3"), "{said}");
    ensure!(said.contains("no such column: score"), "{said}");
    let view = jobs.world.job(name).await?;
    ensure!(view.failed >= 1 && view.failed <= 2, "{view:?}");
    jobs.delete(name).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_out_of_memory_and_a_deadline_are_told() -> Result<()> {
    let Some(jobs) = Jobs::start().await? else {
        return Ok(());
    };
    let (greedy, late) = (named("upper-greedy"), named("upper-late"));
    let args = ["--retries", "0", "--follow", "--env", "GREEDY=1"];
    let ended = jobs.run(&greedy, &args)?;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    ensure!(said.contains("out of memory"), "{said}");
    let args = ["--deadline", "8s", "--follow", "--env", "PAUSE=600"];
    let ended = jobs.run(&late, &args)?;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    ensure!(said.contains("deadline"), "{said}");
    jobs.delete(&greedy).await?;
    jobs.delete(&late).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_deleted_behind_our_back_is_noticed() -> Result<()> {
    let Some(jobs) = Jobs::start().await? else {
        return Ok(());
    };
    let name = named("upper-gone");
    let name = name.as_str();
    let begun = jobs.run(name, &["--env", "PAUSE=600"])?;
    ensure!(begun.status.success(), "{begun:?}");
    until("a task that works", || async {
        let view = jobs.world.job(name).await?;
        Ok((view.running > 0, view))
    })
    .await?;
    let job = jobs.world.jobs_of(&format!("berth-{name}-")).await?;
    let job = job.first().context("a Job")?;
    let api = &jobs.world.jobs;
    api.delete(job, &DeleteParams::background()).await?;
    until("the job to have failed", || async {
        let view = jobs.world.job(name).await?;
        let reason = view.reason.as_ref().map(ToString::to_string);
        let told = reason.is_some_and(|r| r.contains("was deleted"));
        Ok((told && view.state == JobStatus::Failed, view))
    })
    .await?;
    jobs.delete(name).await
}
