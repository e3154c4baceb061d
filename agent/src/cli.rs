//! The command line.

mod unit;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use berth_agent::config::Config;
use berth_agent::data::DataDir;
use berth_agent::identity::{JoinRequest, join};
use berth_agent::run::run;
use berth_agent::runtime::process::ProcessRuntime;
use berth_agent::runtime::{Runtime, Runtimes};
use berth_agent::{facts, pod, stop, tools};
#[cfg(not(feature = "docker"))]
use berth_model::node::RuntimeKind;
use berth_model::token::JoinToken;
use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

/// The agent of a Berth node: runs model servers as its coordinator says.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// How the agent writes its own log to stderr; BERTH_LOG sets what (as in "debug").
    #[arg(long, value_enum, default_value_t = LogFormat::Text, global = true)]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the agent of a node that has joined.
    Run {
        #[command(flatten)]
        place: Place,
    },
    /// Joins a fleet: the node's key is made and certified.
    Join {
        /// The coordinator, as HOST:PORT.
        endpoint: String,
        /// The join token, from `berth node token create`.
        #[arg(long, env = "BERTH_JOIN_TOKEN", hide_env_values = true)]
        token: JoinToken,
        /// The node's name; the host's if not given.
        #[arg(long)]
        name: Option<String>,
        /// Do not have systemd run the agent.
        #[arg(long)]
        no_start: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Inside a Pod: what the containers of a Kubernetes Job of Berth run, told what to do by their environment.
    Pod {
        #[command(subcommand)]
        command: PodCommand,
    },
    /// Stops every instance in order, while no agent runs; one that is run again starts them again.
    StopInstances {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum PodCommand {
    /// Joins with the Pod's one-time token and fetches its package.
    Prepare,
    /// Runs what was prepared, ships its logs, and exits with the module's code.
    Run,
}

#[derive(Debug, Args)]
struct Place {
    /// Configuration file [default: /etc/berth/agent.toml, if there is one].
    #[arg(long)]
    config: Option<PathBuf>,
    /// Data folder; wins over the configuration's data_dir.
    #[arg(long)]
    data: Option<PathBuf>,
}

impl Place {
    fn is_usual(&self) -> bool {
        self.config.is_none() && self.data.is_none()
    }

    fn open(&self) -> Result<(Config, DataDir)> {
        let config = Config::load(self.config.as_deref())?;
        let data = DataDir::open(self.data.as_deref().unwrap_or(&config.data_dir))?;
        Ok((config, data))
    }
}

/// Does what the command line says.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode> {
    let in_pod = matches!(
        arguments.command,
        Command::Pod {
            command: PodCommand::Run
        }
    );
    if in_pod && pod::is_init() {
        return Ok(ExitCode::from(pod::as_init()?));
    }
    if in_pod {
        pod::hear_signals()?;
    }
    // In a Pod the module's lines are beside it.
    set_up_log(arguments.log_format, if in_pod { "warn" } else { "info" });
    // One thread: an agent waits nearly always, and instances need the cores and the memory.
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot set up the event loop")?;
    let result = tokio.block_on(dispatch(&arguments.command));
    // Threads in the middle of a launch or an unpacking are not waited for: both survive being cut off.
    tokio.shutdown_timeout(Duration::from_millis(200));
    result
}

async fn dispatch(command: &Command) -> Result<ExitCode> {
    match command {
        Command::Pod { command } => return in_pod(*command).await,
        Command::Run { place } => {
            let (config, data) = place.open()?;
            let runtimes = runtimes(&config, &data)?;
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let stop = async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                tracing::info!("ending; the instances go on");
                berth_notify::stopping("ending; the instances go on");
            };
            run(&config, &data, runtimes, stop).await?;
        }
        Command::Join {
            endpoint,
            token,
            name,
            no_start,
            place,
        } => {
            let (config, data) = place.open()?;
            let lock = data.lock()?;
            let facts = facts::gather(&config, data.root());
            let request = JoinRequest {
                endpoint,
                token,
                name: name.as_deref(),
                facts,
                pod: None,
            };
            let joined = join(&data, request).await?;
            say(&format!("joined as {}", joined.identity.name))?;
            drop(lock);
            // The unit runs the agent of the usual place, and of no other.
            if !no_start && place.is_usual() && unit::is_installed() {
                unit::start().context("this machine has joined, but its agent does not run")?;
                say("berth-agent runs, and will at every boot")?;
            }
        }
        Command::StopInstances { place } => {
            let (config, data) = place.open()?;
            let done = stop::stop_instances(&data, runtimes(&config, &data)?).await?;
            say(&format!(
                "stopped {} instances, {} of them by force",
                done.stopped, done.killed
            ))?;
            if done.unknown > 0 {
                bail!(
                    "{} starts could not be looked at: see the log above",
                    done.unknown
                );
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn in_pod(command: PodCommand) -> Result<ExitCode> {
    let env: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let settings = pod::Settings::read(&env)?;
    let done = async {
        match command {
            PodCommand::Prepare => {
                let spec = pod::prepare(&settings, &pod::token(&env)?).await?;
                say(&format!("prepared {}", spec.id))?;
                Ok(ExitCode::SUCCESS)
            }
            PodCommand::Run => anyhow::Ok(ExitCode::from(pod::run(&settings).await?)),
        }
    };
    done.await.inspect_err(|error| {
        pod::note_failure(&settings.termination_log, &format!("{error:#}"));
    })
}

fn say(text: &str) -> Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Everything that can start instances here.
fn runtimes(config: &Config, data: &DataDir) -> Result<Arc<Runtimes>> {
    let shim = shim(config)?;
    let process = ProcessRuntime::isolated(shim.clone(), &config.isolation, data.root())?;
    let process: Arc<dyn Runtime> = Arc::new(process);
    let runtimes = docker(Runtimes::new([process]), config, data, &shim);
    Ok(Arc::new(runtimes))
}

#[cfg(not(feature = "docker"))]
fn docker(runtimes: Runtimes, _: &Config, _: &DataDir, _: &Path) -> Runtimes {
    runtimes.without(
        RuntimeKind::Docker,
        "this build of berth-agent has no Docker support; install one built with the feature docker",
    )
}

#[cfg(feature = "docker")]
fn docker(runtimes: Runtimes, config: &Config, data: &DataDir, shim: &Path) -> Runtimes {
    use berth_agent::runtime::docker::DockerRuntime;
    // One that has not joined yet has no name.
    let name = berth_agent::identity::Identity::load(data).map(|identity| identity.name);
    let labels = name.map(|name| ("io.berth.node".to_owned(), name.to_string()));
    match DockerRuntime::new(
        &config.docker,
        shim,
        data.root(),
        labels.into_iter().collect(),
    ) {
        Ok(docker) => runtimes.with(Arc::new(docker)),
        Err(error) => runtimes.without(
            berth_model::node::RuntimeKind::Docker,
            format!("its thread cannot be started: {error}"),
        ),
    }
}

fn shim(config: &Config) -> Result<PathBuf> {
    let shim = match &config.shim {
        Some(shim) => shim.clone(),
        None => tools::companion("berth-shim").context(
            "berth-shim is neither beside this executable, nor in ../lib/berth from there, nor on PATH; set shim in agent.toml",
        )?,
    };
    if !is_program(&shim) {
        bail!(
            "{} is not a program: set shim in agent.toml to the berth-shim binary",
            shim.display()
        );
    }
    Ok(std::path::absolute(shim)?)
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn set_up_log(format: LogFormat, default: &str) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("BERTH_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_target(false).with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
}
