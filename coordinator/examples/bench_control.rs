//! What one change costs the control actor, at several sizes of the fleet: the real actor and the real store, agents that
//! are only its callers (no network, no TLS).
//!
//! `bench_control [NODES...]`; 1,000 and 10,000 nodes if none are given. Ten instances run on each node.
#![allow(clippy::print_stdout, reason = "what it measures goes to the terminal")]

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use berth_coordinator::control::{
    AgentOpened, Command, Config, ConnectionId, Handle, Join, Reply, ToAgent, start,
};
use berth_model::api::{CreateToken, Deploy};
use berth_model::digest::{BlobDigest, PackageDigest};
use berth_model::instance::{InstanceSpec, InstanceStatus, Intent, Phase};
use berth_model::node::{Facts, NodeKind, RuntimeKind};
use berth_model::resources::Resources;
use berth_model::service::ModelVersion;
use berth_model::time::Timestamp;
use berth_model::token::JoinToken;
use berth_store::SqliteStore;
use tokio::sync::mpsc;

/// Instances on each node, and of each service.
const EACH: usize = 10;
const REPLICAS: usize = 100;
/// Changes of a kind that are measured.
const CHANGES: u32 = 200;
/// Longest time for a fleet to be filled.
const PATIENCE: Duration = Duration::from_secs(600);

const MANIFEST: &str = r#"
[package]
name = "bench"
version = "1.0.0"
[model]
path = "model"
format = "custom"
[module]
kind = "custom"
command = ["./serve"]
[resources]
cpu = 0.1
memory = "64MiB"
"#;

fn main() -> Result<()> {
    let sizes: Vec<usize> = std::env::args()
        .skip(1)
        .map(|n| n.parse().with_context(|| format!("{n:?} is no number")))
        .collect::<Result<_>>()?;
    let sizes = if sizes.is_empty() {
        vec![1_000, 10_000]
    } else {
        sizes
    };
    println!(
        "| nodes | instances | change | CPU of the process | of it planning | waiting for the store |"
    );
    println!("|---|---|---|---|---|---|");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    for nodes in sizes {
        runtime.block_on(bench(nodes))?;
    }
    Ok(())
}

/// A node's agent, as far as control knows it.
struct Agent {
    connection: ConnectionId,
    inbox: mpsc::Receiver<ToAgent>,
    running: BTreeMap<String, InstanceStatus>,
}

async fn bench(nodes: usize) -> Result<()> {
    // The disk is not what is measured.
    let memory = std::path::Path::new("/dev/shm");
    let dir = if memory.is_dir() {
        tempfile::tempdir_in(memory)?
    } else {
        tempfile::tempdir()?
    };
    let store = SqliteStore::open(&dir.path().join("state.db"))?;
    let (handle, _actor) = start(Config::new(Arc::new(store), "hash")).await?;
    let mut agents = Vec::new();
    let token = ask(&handle, |r| {
        let wanted = CreateToken {
            uses: Some(0),
            ..CreateToken::default()
        };
        Command::CreateToken(wanted, r)
    })
    .await?;
    let token: JoinToken = token.token.parse()?;
    for number in 0..nodes {
        agents.push(join(&handle, &token, number).await?);
    }
    ask(&handle, |r| Command::RegisterModel(Box::new(model()), r)).await?;
    for number in 0..nodes * EACH / REPLICAS {
        let deploy = Deploy {
            model: "bench".to_owned(),
            service: Some(format!("service-{number}").parse()?),
            replicas: Some(u32::try_from(REPLICAS)?),
            ..Deploy::default()
        };
        ask(&handle, |r| Command::Deploy(Box::new(deploy), r)).await?;
    }
    let meter = Meter {
        nodes,
        handle: handle.clone(),
    };
    let before = meter.used();
    fill(&handle, &mut agents, nodes * EACH).await?;
    meter.tell(
        "all instances start, each",
        u32::try_from(nodes * EACH)?,
        &before,
    );
    meter.heartbeats(&agents).await?;
    meter
        .statuses(&mut agents, "a status that changes no route", |status| {
            status.restarts += 1;
        })
        .await?;
    meter
        .statuses(
            &mut agents,
            "an instance fails, or is well again",
            |status| {
                status.phase = match status.phase {
                    Phase::Healthy => Phase::Unhealthy,
                    _ => Phase::Healthy,
                };
            },
        )
        .await?;
    meter.sessions(&mut agents).await?;
    meter.lists().await
}

async fn ask<T>(handle: &Handle, command: impl FnOnce(Reply<T>) -> Command) -> Result<T> {
    handle.ask(command).await.map_err(|p| anyhow!("{p}"))
}

fn facts(number: usize) -> Facts {
    Facts {
        kind: NodeKind::Physical,
        exclusive: false,
        capacity: Resources {
            // Exactly as many as there shall be.
            cpu_millis: 100 * EACH as u64,
            memory_bytes: 2 << 30,
            gpus: 0,
            disk_bytes: 100 << 30,
        },
        runtimes: vec![RuntimeKind::Process],
        hostname: format!("node-{number}"),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Facts::default()
    }
}

async fn join(handle: &Handle, token: &JoinToken, number: usize) -> Result<Agent> {
    let join = Join {
        token_id: token.id.clone(),
        token_secret: token.secret.clone(),
        key_hash: format!("{number:064x}"),
        name: format!("node-{number}"),
        facts: facts(number),
        pod: None,
    };
    ask(handle, |r| Command::Join(Box::new(join), r)).await?;
    let (outbox, inbox) = mpsc::channel(64);
    let mut agent = Agent {
        connection: 0,
        inbox,
        running: BTreeMap::new(),
    };
    agent.connection = open(handle, &agent, number, outbox).await?;
    Ok(agent)
}

async fn open(
    handle: &Handle,
    agent: &Agent,
    number: usize,
    outbox: mpsc::Sender<ToAgent>,
) -> Result<ConnectionId> {
    let key = format!("{number:064x}");
    let name = ask(handle, |r| Command::AgentByKey(key, r)).await?;
    let opened = AgentOpened {
        agent: name,
        incarnation: "one".to_owned(),
        facts: facts(number),
        accepted: None,
        instances: agent.running.values().cloned().collect(),
        outbox,
    };
    ask(handle, |r| Command::AgentOpened(Box::new(opened), r)).await
}

fn model() -> ModelVersion {
    #[allow(clippy::expect_used, reason = "the text is above")]
    let manifest = berth_model::manifest::parse(MANIFEST, "berth.toml").expect("a manifest");
    ModelVersion {
        name: manifest.package.name.clone(),
        version: manifest.package.version.clone(),
        serial: 1,
        digest: PackageDigest::from_bytes([1; 32]),
        blob: BlobDigest::from_bytes([1; 32]),
        blob_bytes: 1,
        unpacked_bytes: 1,
        manifest,
        pushed: Timestamp(0),
    }
}

/// Obeys until everything runs; all agents at a time, as they do.
async fn fill(handle: &Handle, agents: &mut [Agent], wanted: usize) -> Result<()> {
    let began = Instant::now();
    loop {
        let mut said = Vec::new();
        for agent in &mut *agents {
            while let Ok(word) = agent.inbox.try_recv() {
                if let ToAgent::Desired { order, instances } = word {
                    let told = Command::AgentAcknowledged(agent.connection, order, None);
                    handle.tell(told).await;
                    let (connection, news) = (agent.connection, obey(agent, instances)?);
                    said.push(ask(handle, move |r| {
                        Command::AgentStatus(connection, news, Vec::new(), r)
                    }));
                }
            }
        }
        futures_util::future::try_join_all(said).await?;
        let running: usize = agents.iter().map(|agent| agent.running.len()).sum();
        if running == wanted {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            bail!("only {running} of {wanted} instances run");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Starts what is new; answers what there is to say of it.
fn obey(agent: &mut Agent, instances: Vec<InstanceSpec>) -> Result<Vec<InstanceStatus>> {
    let mut news = Vec::new();
    for spec in instances.into_iter().filter(|s| s.intent == Intent::Run) {
        if let Entry::Vacant(place) = agent.running.entry(spec.id.to_string()) {
            let status = healthy(spec)?;
            news.push(place.insert(status).clone());
        }
    }
    Ok(news)
}

fn healthy(spec: InstanceSpec) -> Result<InstanceStatus> {
    Ok(InstanceStatus {
        id: spec.id,
        phase: Phase::Healthy,
        start: 1,
        restarts: 0,
        address: Some("127.0.0.1:21000".parse()?),
        reason: None,
        last_lines: Vec::new(),
        pid: Some(1),
        since: Timestamp(0),
        digest: Some(spec.digest),
        output: None,
        gpus: Vec::new(),
    })
}

/// Takes the time of changes.
struct Meter {
    nodes: usize,
    handle: Handle,
}

/// What has been used so far.
struct Used {
    process: Duration,
    planning: f64,
    store: f64,
}

impl Meter {
    fn used(&self) -> Used {
        let text = self.handle.metrics().render();
        let figure = |name: &str| {
            let mut lines = text.lines();
            let line = lines.find_map(|l| l.strip_prefix(&format!("berth_control_{name} ")));
            line.and_then(|value| value.parse().ok()).unwrap_or(0.0)
        };
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let process = Duration::try_from(time).unwrap_or_default();
        Used {
            process,
            planning: figure("plan_seconds_total"),
            store: figure("commit_seconds_total"),
        }
    }

    fn tell(&self, what: &str, times: u32, before: &Used) {
        let after = self.used();
        let each = |seconds: f64| seconds / f64::from(times) * 1e6;
        println!(
            "| {} | {} | {what} | {:.0} µs | {:.0} µs | {:.0} µs |",
            self.nodes,
            self.nodes * EACH,
            each((after.process - before.process).as_secs_f64()),
            each(after.planning - before.planning),
            each(after.store - before.store),
        );
    }

    /// The question at the end is behind everything that was told before it.
    async fn heartbeats(&self, agents: &[Agent]) -> Result<()> {
        ask(&self.handle, Command::Gateways).await?;
        let before = self.used();
        let mut told = 0;
        for agent in agents.iter().cycle().take(10_000) {
            self.handle
                .tell(Command::AgentHeard(agent.connection))
                .await;
            told += 1;
        }
        ask(&self.handle, Command::Gateways).await?;
        self.tell("a heartbeat", told, &before);
        Ok(())
    }

    /// One after the other, each of another node.
    async fn statuses(
        &self,
        agents: &mut [Agent],
        what: &str,
        change: impl Fn(&mut InstanceStatus),
    ) -> Result<()> {
        let before = self.used();
        let step = (agents.len() / CHANGES as usize).max(1);
        for turn in 0..CHANGES as usize {
            let place = turn * step % agents.len();
            let agent = &mut agents[place];
            let status = agent.running.values_mut().next().context("no instance")?;
            change(status);
            let (connection, news) = (agent.connection, vec![status.clone()]);
            ask(&self.handle, |r| {
                Command::AgentStatus(connection, news, Vec::new(), r)
            })
            .await?;
        }
        ask(&self.handle, Command::Gateways).await?;
        self.tell(what, CHANGES, &before);
        Ok(())
    }

    /// Agents come back, by their key.
    async fn sessions(&self, agents: &mut [Agent]) -> Result<()> {
        let before = self.used();
        let mut times = 0;
        for (number, agent) in agents.iter_mut().enumerate().take(CHANGES as usize) {
            let (outbox, inbox) = mpsc::channel(64);
            agent.inbox = inbox;
            agent.connection = open(&self.handle, agent, number, outbox).await?;
            times += 1;
        }
        ask(&self.handle, Command::Gateways).await?;
        self.tell("an agent comes back", times, &before);
        Ok(())
    }

    async fn lists(&self) -> Result<()> {
        let before = self.used();
        ask(&self.handle, Command::Nodes).await?;
        self.tell("the list of all nodes", 1, &before);
        let before = self.used();
        ask(&self.handle, Command::Status).await?;
        self.tell("the fleet's status", 1, &before);
        Ok(())
    }
}
