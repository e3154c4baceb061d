//! A whole Berth: coordinator, gateway, agents.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::disks::SmallDisks;
use crate::outside::output_of;

use crate::{Client, Daemon, Mode, Outcome, PortSlice, RelayPlace, bin, stage, until, until_some};

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Virtual nodes, one instance each.
    pub nodes: usize,
    /// Further lines of coordinator.toml.
    pub coordinator: String,
    /// Further lines of every agent.toml; `exclusive` first, if nodes are to take more than one instance.
    pub agent: String,
    /// With the tests' Kubernetes as cluster `k8s`.
    pub kubernetes: bool,
    /// On the network of [`crate::Hosts`], where the nodes are: the coordinator at [`crate::hosts::OTHER`], the gateway at
    /// [`crate::hosts::TEST`].
    pub hosts: bool,
    /// Coordinator and gateway each on a file system of so many bytes.
    pub small_disks: Option<u64>,
    /// Instances are reached through relays, as on real hosts.
    pub relay: bool,
}

impl Options {
    /// Coordinator and gateway for nodes that are hosts.
    pub fn on_hosts() -> Self {
        Self {
            hosts: true,
            ..Self::nodes(0)
        }
    }

    /// `n` nodes, otherwise as shipped.
    pub fn nodes(n: usize) -> Self {
        Self {
            nodes: n,
            coordinator: String::new(),
            agent: String::new(),
            kubernetes: false,
            hosts: false,
            small_disks: None,
            relay: false,
        }
    }
}

/// Processes of one Berth, with folders and ports of their own; gone when dropped.
pub struct Cluster {
    /// The coordinator.
    pub coordinator: Daemon,
    /// The gateway.
    pub gateway: Daemon,
    /// The agents, by node.
    pub agents: Vec<Daemon>,
    /// Their nodes' relays, where there are any.
    pub relays: Vec<Daemon>,
    /// Speaks to it.
    pub client: Client,
    // Before the folder that they are in.
    _disks: SmallDisks,
    dir: TempDir,
    options: Options,
    ports: PortSlice,
    module: PathBuf,
}

impl Cluster {
    /// Starts everything and waits until the nodes are connected and the gateway follows. `module` is
    /// the program of test packages (`env!("CARGO_BIN_EXE_test-module")`).
    pub async fn start(options: Options, module: &str) -> Result<Self> {
        let dir = TempDir::with_prefix("berth-test-")?;
        let ports = PortSlice::take()?;
        let home = dir.path();
        for name in ["coordinator", "gateway"] {
            std::fs::create_dir_all(home.join(name))?;
        }
        let disks = SmallDisks::mount(home, options.small_disks)?;
        let config = home.join("coordinator.toml");
        // A fixed port, so that everybody finds a restarted coordinator again.
        let api = ports.of_daemon(0);
        // Pods reach the coordinator at the address of the bridge that they are on.
        let (host, cluster) = match options.kubernetes {
            true => ("0.0.0.0", crate::kubernetes::cluster(api)?),
            false if options.hosts => (crate::hosts::OTHER, String::new()),
            false => ("127.0.0.1", String::new()),
        };
        std::fs::write(
            &config,
            format!(
                "listen = \"{host}:{api}\"\n{}{cluster}",
                options.coordinator
            ),
        )?;
        let coordinator = Daemon::start(
            "coordinator",
            &bin("berth-coordinator")?,
            &[
                "--config",
                text(&config)?,
                "--data",
                text(&home.join("coordinator"))?,
            ],
            home.join("coordinator.log"),
        )?;
        let api = endpoint(&home.join("coordinator/endpoint"), &coordinator).await?;
        let gateway = start_gateway(home, api, &ports, &options)?;
        let gateway_at = endpoint(&home.join("gateway/gateway-endpoint"), &gateway).await?;
        let client = Client::new(api, &home.join("coordinator"), gateway_at)?;
        let mut cluster = Self {
            coordinator,
            gateway,
            agents: Vec::new(),
            relays: Vec::new(),
            client,
            options: options.clone(),
            ports,
            module: PathBuf::from(module),
            _disks: disks,
            dir,
        };
        for _ in 0..options.nodes {
            cluster.add_node().await?;
        }
        cluster.wait_connected().await?;
        Ok(cluster)
    }

    /// The cluster's folder.
    pub fn home(&self) -> &Path {
        self.dir.path()
    }

    /// The data folder of the `i`-th node.
    pub fn node_data(&self, i: usize) -> PathBuf {
        self.home().join(format!("node-{}", i + 1))
    }

    /// The relay of the `i`-th node.
    pub fn relay_place(&self, i: usize) -> RelayPlace {
        let port = self
            .ports
            .of_daemon(10 + u16::try_from(i).unwrap_or(u16::MAX));
        RelayPlace::of(&self.node_data(i), port)
    }

    /// Joins one more machine and starts its agent.
    pub async fn add_node(&mut self) -> Result<()> {
        let i = self.agents.len();
        let name = format!("node-{}", i + 1);
        let data = self.node_data(i);
        std::fs::create_dir_all(&data)?;
        let (first, last) = self.ports.of_node(i);
        let config = self.home().join(format!("{name}.toml"));
        let exclusive = match self.options.agent.starts_with("exclusive = ") {
            true => "",
            false => "exclusive = true\n",
        };
        let mut toml = format!(
            "port_range = \"{first}-{last}\"\nkind = \"virtual\"\n{exclusive}{}",
            self.options.agent
        );
        if self.options.relay {
            let place = self.relay_place(i);
            toml = place.agent_toml() + &toml;
            self.relays.push(place.start(&name, self.home())?);
        }
        std::fs::write(&config, toml)?;
        let token = self.client.token().await?;
        let api = std::fs::read_to_string(self.home().join("coordinator/endpoint"))?
            .replace("0.0.0.0", "127.0.0.1");
        let output = Command::new(bin("berth-agent")?)
            .args([
                "join",
                api.trim(),
                "--token",
                &token,
                "--name",
                &name,
                "--data",
                text(&data)?,
            ])
            .output()?;
        if !output.status.success() {
            bail!("join failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        let agent = Daemon::start(
            &name,
            &bin("berth-agent")?,
            &["run", "--config", text(&config)?, "--data", text(&data)?],
            self.home().join(format!("{name}.log")),
        )?;
        self.agents.push(agent);
        Ok(())
    }

    /// Waits until every node is connected and the gateway follows.
    pub async fn wait_connected(&self) -> Result<()> {
        let nodes = self.agents.len();
        until("all nodes and the gateway to be connected", || async {
            let status = self.client.status().await?;
            let ready = status.nodes.get("ready").copied().unwrap_or(0) as usize;
            let following = status.gateways.iter().any(|g| g.connected);
            Ok((ready == nodes && following, status))
        })
        .await
    }

    /// Builds and pushes a test package.
    pub fn push(&self, name: &str, version: &str, mode: Mode) -> Result<()> {
        let dir = self.home().join(format!("package-{name}-{version}"));
        stage(&dir, &self.module, name, version, mode)?;
        self.push_folder(&dir)
    }

    /// Builds and pushes a package folder.
    pub fn push_folder(&self, dir: &Path) -> Result<()> {
        let output = self.cli(&["model", "push", text(dir)?])?;
        if !output.status.success() {
            bail!("push failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// Starts the coordinator anew with other lines of coordinator.toml than those of [`Options`].
    pub async fn reconfigure(&mut self, coordinator: &str) -> Result<()> {
        let config = self.home().join("coordinator.toml");
        let toml = std::fs::read_to_string(&config)?;
        std::fs::write(
            &config,
            toml.replace(&self.options.coordinator, coordinator),
        )?;
        self.options.coordinator = coordinator.to_owned();
        self.coordinator.kill();
        self.coordinator.restart()?;
        self.wait_connected().await
    }

    /// What the CLI prints on success; else its error.
    pub fn cli_text(&self, args: &[&str]) -> Result<String> {
        let output = self.cli(args)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            bail!("berth {}: {error}{text}", args.join(" "));
        }
        Ok(text)
    }

    /// Runs the CLI against this cluster.
    pub fn cli(&self, args: &[&str]) -> Result<std::process::Output> {
        Command::new(bin("berth")?)
            .args(args)
            .envs(self.cli_env()?)
            .output()
            .context("cannot run berth")
    }

    /// With what the CLI finds this cluster.
    pub fn cli_env(&self) -> Result<BTreeMap<&'static str, String>> {
        let data = self.home().join("coordinator");
        let api = std::fs::read_to_string(data.join("endpoint"))?;
        let token = std::fs::read_to_string(data.join("admin.token"))?;
        let api = api.trim().trim_start_matches("https://");
        Ok(BTreeMap::from([
            ("BERTH_ENDPOINT", format!("https://{api}")),
            ("BERTH_CA", data.join("ca.crt").display().to_string()),
            ("BERTH_TOKEN", token.trim().to_owned()),
            (
                "XDG_CONFIG_HOME",
                self.home().join("config").display().to_string(),
            ),
        ]))
    }

    /// Waits until `service` has `ready` healthy instances, all of its wanted revision.
    pub async fn wait_ready(&self, service: &str, ready: u32) -> Result<()> {
        until(&format!("{service} to have {ready} ready"), || async {
            let view = self.client.service(service).await?;
            let only = view
                .instances
                .iter()
                .filter(|i| i.status.id.slot.revision != view.revision)
                .count();
            let all = view.ready == ready && view.instances.len() == ready as usize && only == 0;
            Ok((all, view))
        })
        .await
    }

    /// Waits until predictions are answered.
    pub async fn wait_serving(&self, service: &str) -> Result<()> {
        until(&format!("{service} to answer"), || async {
            let answer = self.client.predict(service, 0).await?;
            Ok((answer.0.is_success(), answer))
        })
        .await
    }

    /// Pushes `NAME@1.0.0`, deploys it and waits until all replicas serve.
    pub async fn deploy(&self, name: &str, mode: Mode, replicas: u32) -> Result<()> {
        self.push(name, "1.0.0", mode)?;
        self.client.deploy(name, Some(replicas)).await?;
        self.wait_ready(name, replicas).await?;
        self.wait_serving(name).await
    }

    /// (instance, start, pid) of a service's instances: equal before and after means none restarted.
    pub async fn runs(&self, service: &str) -> Result<Vec<(String, u32, Option<u32>)>> {
        let view = self.client.service(service).await?;
        Ok(view
            .instances
            .iter()
            .map(|i| (i.status.id.to_string(), i.status.start, i.status.pid))
            .collect())
    }

    /// Runs `berth-coordinator backup` or `restore` on the coordinator's folder.
    pub fn coordinator_task(&self, task: &str, file: &Path) -> Result<()> {
        let data = self.home().join("coordinator");
        let output = Command::new(bin("berth-coordinator")?)
            .arg(task)
            .arg(file)
            .arg("--data")
            .arg(&data)
            .output()?;
        if !output.status.success() {
            bail!("{task}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// Waits until the line of every answered request is there, and fails if one is there twice.
    pub async fn assert_lines(&self, service: &str, outcome: &Outcome) -> Result<()> {
        until("every answered request's line", || async {
            let lines = self.lines(service).await?;
            let missing = outcome
                .answered
                .iter()
                .filter(|n| !lines.contains_key(n))
                .count();
            Ok((missing == 0, missing))
        })
        .await?;
        let lines = self.lines(service).await?;
        let doubled: Vec<_> = outcome
            .answered
            .iter()
            .filter(|n| lines.get(n).is_some_and(|count| *count > 1))
            .collect();
        if !doubled.is_empty() {
            bail!("lines that are there more than once: {doubled:?}");
        }
        Ok(())
    }

    /// How often each request's line is in the logs.
    async fn lines(&self, service: &str) -> Result<BTreeMap<u64, u32>> {
        let mut count = BTreeMap::new();
        for line in self.client.logs(service).await? {
            if let Some(number) = line.text.strip_prefix("request ") {
                *count.entry(number.parse()?).or_default() += 1;
            }
        }
        Ok(count)
    }

    /// Starts another gateway process on the same folder, as a supervisor would.
    pub async fn restart_gateway(&mut self) -> Result<()> {
        self.gateway.restart()
    }

    /// Runs `berth-agent stop-instances` for the `i`-th node, whose agent must not run.
    pub fn stop_instances(&self, i: usize) -> Result<String> {
        let data = self.node_data(i);
        output_of(
            Command::new(bin("berth-agent")?)
                .arg("stop-instances")
                .arg("--config")
                .arg(data.with_extension("toml"))
                .arg("--data")
                .arg(&data),
        )
    }

    /// Everything that the processes logged, for a failure's message.
    pub fn logs(&self) -> String {
        let mut all = format!(
            "== coordinator\n{}== gateway\n{}",
            self.coordinator.log(),
            self.gateway.log()
        );
        for (i, agent) in self.agents.iter().enumerate() {
            all.push_str(&format!("== node-{}\n{}", i + 1, agent.log()));
        }
        for relay in &self.relays {
            all.push_str(&format!("== a relay\n{}", relay.log()));
        }
        all
    }
}

/// Instances outlive their agents by design, so each node is told to stop its own.
impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        for i in 0..self.agents.len() {
            self.agents[i].kill();
            let data = self.node_data(i);
            let stopped = self.stop_instances(i);
            if stopped.is_ok() {
                continue;
            }
            eprintln!(
                "instances under {} may be left: {stopped:?}",
                data.display()
            );
        }
    }
}

fn start_gateway(
    home: &Path,
    api: SocketAddr,
    ports: &PortSlice,
    options: &Options,
) -> Result<Daemon> {
    let data = home.join("gateway");
    std::fs::create_dir_all(&data)?;
    let config = home.join("gateway.toml");
    let port = ports.of_daemon(1);
    let host = if options.hosts {
        crate::hosts::TEST
    } else {
        "127.0.0.1"
    };
    let toml = format!(
        "name = \"test\"\nendpoint = \"{api}\"\nca_file = \"{ca}\"\ntoken_file = \"{token}\"\n\
         listen = \"{host}:{port}\"\nadmin_listen = \"127.0.0.1:0\"\n",
        ca = home.join("coordinator/ca.crt").display(),
        token = home.join("coordinator/gateway.token").display(),
    );
    std::fs::write(&config, toml)?;
    Daemon::start(
        "gateway",
        &bin("berth-coordinator")?,
        &[
            "--role",
            "gateway",
            "--config",
            text(&config)?,
            "--data",
            text(&data)?,
        ],
        home.join("gateway.log"),
    )
}

async fn endpoint(file: &Path, daemon: &Daemon) -> Result<SocketAddr> {
    let waited = until_some("a daemon to say where it listens", || async {
        let text = std::fs::read_to_string(file)?;
        let text = text
            .trim()
            .trim_start_matches("https://")
            .trim_start_matches("http://")
            .replace("0.0.0.0", "127.0.0.1");
        Ok(Some(text.parse()?))
    });
    match tokio::time::timeout(Duration::from_secs(30), waited).await {
        Ok(found) => found,
        Err(_) => bail!(
            "{} was not written; its log:\n{}",
            file.display(),
            daemon.log()
        ),
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}
