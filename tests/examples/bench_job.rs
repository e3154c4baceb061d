//! `cargo xtask bench job`: from `berth job run` to the Pod's creation as the API server's watchers see it, beside
//! `kubectl create` of the very same Job; from a Pod's line to `berth logs`; requests per one-Pod job with many
//! at once. Needs `BERTH_TEST_KUBECONFIG`, kubectl on PATH, and the images that `cargo xtask test` loads.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "it prints its figures")]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use berth_tests::{Cluster, Mode, Options, bin, kubeconfig, stage, until};
use futures_util::StreamExt;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher;
use kube::{Api, Client};
use reqwest::Method;
use tokio::sync::mpsc;

/// Writes so many lines with the time of each, then its output.
const TASK: &str = "#!/bin/sh\nsleep ${PAUSE:-0}\ni=0\nwhile [ $i -lt ${LINES:-0} ]; do echo \"tick $(date +%s%N)\"; \
                    sleep 0.1; i=$((i+1)); done\ncp \"$BERTH_JOB_INPUT\" \"$BERTH_JOB_OUTPUT\"\n";

struct Bench {
    cluster: Cluster,
    jobs: Api<Job>,
    /// Pods as they appear: the owning Job's name and when.
    pods: mpsc::UnboundedReceiver<(String, Instant)>,
    input: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let rounds = args.next().map_or(Ok(15), |n| n.parse())?;
    let many = args.next().map_or(Ok(200), |n| n.parse())?;
    let mut bench = Bench::start().await?;
    bench.creation(rounds).await?;
    bench.lines(rounds).await?;
    bench.requests(many).await
}

impl Bench {
    async fn start() -> Result<Self> {
        let path = kubeconfig().context("set BERTH_TEST_KUBECONFIG")?;
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = kube::Config::from_custom_kubeconfig(
            Kubeconfig::read_from(&path)?,
            &KubeConfigOptions::default(),
        )
        .await?;
        let client = Client::try_from(config)?;
        let module = std::env::current_exe()?
            .ancestors()
            .nth(2)
            .map(|dir| dir.join("test-module"))
            .context("this program lies nowhere")?;
        let mut options = Options::nodes(0);
        options.kubernetes = true;
        let cluster = Cluster::start(options, module.to_str().context("a path")?).await?;
        let dir = cluster.home().join("package");
        stage(&dir, &module, "ticks", "1.0.0", Mode::Good)?;
        let task = dir.join("bin/task");
        std::fs::write(&task, TASK)?;
        std::fs::set_permissions(&task, std::fs::Permissions::from_mode(0o755))?;
        let manifest = dir.join("berth.toml");
        let text = std::fs::read_to_string(&manifest)?;
        std::fs::write(&manifest, text + "\n[job]\ncommand = [\"bin/task\"]\n")?;
        cluster.push_folder(&dir)?;
        let input = cluster.home().join("input");
        std::fs::write(&input, "one line\n")?;
        let bench = Self {
            jobs: Api::namespaced(client.clone(), "default"),
            pods: watch(Api::namespaced(client, "default")),
            input: input.display().to_string(),
            cluster,
        };
        until("the cluster to be in reach", || async {
            let list = bench.cluster.cli_text(&["cluster", "list"])?;
            Ok((list.contains("ready"), list))
        })
        .await?;
        Ok(bench)
    }

    fn run(&self, name: &str, more: &[&str]) -> Result<()> {
        let mut args = vec![
            "job",
            "run",
            "ticks",
            "--runtime",
            "kubernetes",
            "--name",
            name,
        ];
        args.extend(["--input", &self.input]);
        args.extend(more);
        self.cluster.cli_text(&args).map(drop)
    }

    /// When the first Pod of a Job appeared.
    async fn appeared(&mut self, job: &str) -> Result<Instant> {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(60), self.pods.recv());
            let (owner, at) = next.await?.context("the watch ended")?;
            if owner == job {
                return Ok(at);
            }
        }
    }

    /// Alternately by Berth and by kubectl, so that both meet the same machine.
    async fn creation(&mut self, rounds: usize) -> Result<()> {
        let tag = std::process::id();
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let name = format!("bench-{tag:x}-{round}");
            let job = format!("berth-{name}-job");
            let began = Instant::now();
            self.run(&name, &[])?;
            ours.push(self.appeared(&job).await? - began);
            let file = self.same_job(&job).await?;
            self.cluster.cli_text(&["job", "delete", &name])?;
            let began = Instant::now();
            kubectl(&["create", "-f", &file])?;
            theirs.push(self.appeared(&job).await? - began);
            kubectl(&["delete", "job", &job, "--wait=true"])?;
        }
        println!(
            "{rounds} rounds, from the command's start to the Pod's creation as a watcher sees it"
        );
        print("berth job run", &mut ours);
        print("kubectl create", &mut theirs);
        let more = ms(ours[rounds / 2]) - ms(theirs[rounds / 2]);
        println!("  berth over kubectl, medians      {more:>7.1} ms");
        Ok(())
    }

    /// What Berth made, as a file for kubectl; without what says that it is Berth's.
    async fn same_job(&self, name: &str) -> Result<String> {
        let mut job = self.jobs.get(name).await?;
        let spec = job.spec.as_mut().context("a spec")?;
        spec.selector = None;
        let template = spec.template.metadata.get_or_insert_default();
        template.labels = None;
        job.metadata = kube::core::ObjectMeta {
            name: Some(name.to_owned()),
            ..Default::default()
        };
        job.status = None;
        let path = self.cluster.home().join("job.json");
        std::fs::write(&path, serde_json::to_vec(&job)?)?;
        Ok(path.display().to_string())
    }

    async fn lines(&mut self, rounds: usize) -> Result<()> {
        let name = format!("bench-lines-{:x}", std::process::id());
        let count = (rounds * 10).to_string();
        self.run(&name, &["--env", &format!("LINES={count}")])?;
        let mut follow = Command::new(bin("berth")?)
            .args(["logs", &name, "-f"])
            .envs(self.cluster.cli_env()?)
            .stdout(Stdio::piped())
            .spawn()?;
        let out = follow.stdout.take().context("its output")?;
        let mut took = Vec::new();
        for line in BufReader::new(out).lines() {
            let line = line?;
            let Some((_, printed)) = line.split_once("tick ") else {
                continue;
            };
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
            let printed: u128 = printed.trim().parse()?;
            let nanos = u64::try_from(now.saturating_sub(printed))?;
            took.push(Duration::from_nanos(nanos));
        }
        follow.wait()?;
        ensure!(!took.is_empty(), "no line came");
        println!("{} lines, from a Pod's echo to berth logs -f", took.len());
        print("line", &mut took);
        self.cluster.cli_text(&["job", "delete", &name])?;
        Ok(())
    }

    async fn requests(&mut self, many: usize) -> Result<()> {
        let before = requests(&self.cluster).await?;
        let began = Instant::now();
        let tag = std::process::id();
        let names: Vec<String> = (0..many).map(|n| format!("many-{tag:x}-{n}")).collect();
        for name in &names {
            self.run(name, &[])?;
        }
        let cluster = &self.cluster;
        while !settled(cluster, "many-").await? {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        let done = began.elapsed();
        for name in &names {
            let path = format!("/v1/jobs/{name}");
            let (status, text) = cluster.client.raw(Method::DELETE, &path, None).await?;
            ensure!(status.is_success(), "{status}: {text}");
        }
        while cluster.cli_text(&["job", "list"])?.contains("many-") {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        let left = self.jobs.list(&ListParams::default()).await?.items.len();
        ensure!(left == 0, "{left} Jobs are left");
        let spent = requests(cluster).await? - before;
        println!(
            "{many} one-Pod jobs at once, begun to ended in {:.0} s",
            done.as_secs_f64()
        );
        #[allow(clippy::cast_precision_loss, reason = "small counts")]
        let each = spent as f64 / many as f64;
        println!("  API requests per job             {each:>7.2}  (watches and lists not counted)");
        Ok(())
    }
}

fn watch(api: Api<Pod>) -> mpsc::UnboundedReceiver<(String, Instant)> {
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
        let mut known = std::collections::BTreeSet::new();
        while let Some(event) = events.next().await {
            if let Ok(watcher::Event::Apply(pod)) = event
                && let Some(uid) = pod.metadata.uid
                && known.insert(uid)
            {
                let owner = pod.metadata.owner_references.unwrap_or_default();
                let owner = owner.into_iter().next().map(|o| o.name).unwrap_or_default();
                let _ = sender.send((owner, Instant::now()));
            }
        }
    });
    receiver
}

/// Whether every job with such a name is over.
async fn settled(cluster: &Cluster, prefix: &str) -> Result<bool> {
    let list = cluster.cli_text(&["job", "list"])?;
    let mine = list.lines().filter(|line| line.starts_with(prefix));
    Ok(mine.clone().count() > 0
        && mine
            .clone()
            .all(|l| l.contains("succeeded") || l.contains("failed")))
}

async fn requests(cluster: &Cluster) -> Result<u64> {
    let (_, text) = cluster.client.raw(Method::GET, "/metrics", None).await?;
    let counted = |line: &&str| {
        line.starts_with("berth_kubernetes_requests_total{")
            && !line.contains("verb=\"watch\"")
            && !line.contains("verb=\"list\"")
    };
    let values = text.lines().filter(counted);
    Ok(values
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum())
}

fn kubectl(args: &[&str]) -> Result<()> {
    let config = kubeconfig().context("set BERTH_TEST_KUBECONFIG")?;
    let output = Command::new("kubectl")
        .arg("--kubeconfig")
        .arg(Path::new(&config))
        .args(args)
        .output()
        .context("kubectl is not on PATH")?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn print(what: &str, took: &mut [Duration]) {
    took.sort();
    let at = |share: usize| ms(took[(took.len() - 1) * share / 100]);
    println!(
        "  {what:<20} median {:>8.1} ms  p99 {:>8.1}  max {:>8.1}",
        ms(took[took.len() / 2]),
        at(99),
        at(100)
    );
}
