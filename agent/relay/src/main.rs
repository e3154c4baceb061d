//! `berth-relay`: see the library.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result};
use berth_relay::{Config, MEETING, run};
use clap::{Parser, Subcommand};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

/// Lets gateways in to the instances of this node: by TLS, with certificates of the fleet.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Action>,
    /// The folder that the agent writes
    #[arg(long, default_value = "/var/lib/berth/relay", global = true)]
    folder: PathBuf,
    /// Folder of its own, for what is needed only while it runs
    #[arg(long, default_value = "/run/berth-relay", global = true)]
    runtime: PathBuf,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Action {
    /// Lets gateways in; what is done without any command
    Run,
    /// Starts this program anew beside the relay that runs; the new one takes over without a gap
    Reload,
}

/// Callers' connections at a time, if the system gives two descriptors for each, and some for strangers.
const CONNECTIONS: usize = 10_000;
const SPARE: usize = 2_048;
const STOP: Duration = Duration::from_secs(5);
/// Gateways use no connection for longer than five minutes; after that only long requests are left.
const DRAIN: Duration = Duration::from_secs(15 * 60);
const RELOAD: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    set_up_log();
    match execute(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(arguments: &Arguments) -> Result<()> {
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot set up the event loop")?;
    tokio.block_on(async {
        match arguments.command {
            None | Some(Action::Run) => relay(arguments).await,
            Some(Action::Reload) => reload(arguments).await,
        }
    })
}

async fn relay(arguments: &Arguments) -> Result<()> {
    let config = Config {
        folder: arguments.folder.clone(),
        runtime: arguments.runtime.clone(),
        connections: connections(),
        stop: STOP,
        drain: DRAIN,
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("ending");
    };
    run(&config, stop).await?;
    Ok(())
}

async fn reload(arguments: &Arguments) -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("--folder")
        .arg(&arguments.folder)
        .arg("--runtime")
        .arg(&arguments.runtime);
    let meeting = arguments.runtime.join(MEETING);
    let pid = berth_handover::reload(&meeting, command, RELOAD).await?;
    tracing::info!(pid, "the new process serves");
    Ok(())
}

/// Takes all descriptors that this process may have, and tells for how many connections they are enough.
fn connections() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    (files.saturating_sub(SPARE) / 2).clamp(64, CONNECTIONS)
}

fn set_up_log() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("BERTH_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false)
        .init();
}
