//! `berth-coordinator`: the control plane, or with `--role gateway` the data plane's process.
#![forbid(unsafe_code)]

mod args;

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use berth_coordinator::config::ControlConfig;
use berth_coordinator::gateway_role;
use berth_coordinator::run::{Coordinator, DATABASE_FILE, create_private};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use args::{Args, LogFormat, RELOAD, Role, Task};

fn main() -> ExitCode {
    let args = Args::parse();
    start_logging(args.log_format);
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With all its causes, and whatever the log's filter is.
            let _ = writeln!(std::io::stderr(), "berth-coordinator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    match &args.task {
        Some(Task::Backup { file }) => return backup(&args, file),
        Some(Task::Restore { file }) => return restore(&args, file),
        Some(Task::Reload) => return reload(&args),
        None => {}
    }
    match args.role {
        Role::Control => {
            let config = control_config(&args)?;
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let shutdown = on_signal()?;
                let coordinator = Coordinator::start(config).await?;
                Ok(coordinator.run(shutdown).await?)
            })
        }
        Role::Gateway => {
            let config = gateway_config(&args)?;
            // The data plane has threads of its own; what is left here is little.
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let shutdown = on_signal()?;
                Ok(gateway_role::run(config, shutdown).await?)
            })
        }
    }
}

fn control_config(args: &Args) -> anyhow::Result<ControlConfig> {
    let (path, required) = args.config_file();
    let mut config = ControlConfig::read(&path, required)?;
    if let Some(data) = &args.data {
        config.data_dir.clone_from(data);
    }
    if let Some(listen) = args.listen {
        config.listen = listen;
    }
    Ok(config)
}

fn gateway_config(args: &Args) -> anyhow::Result<gateway_role::Config> {
    let (path, required) = args.config_file();
    let mut config = gateway_role::Config::read(&path, required)?;
    if let Some(data) = &args.data {
        config.data_dir.clone_from(data);
    }
    if let Some(listen) = args.listen {
        config.gateway.listen = listen;
    }
    if let Some(listen) = args.admin_listen {
        config.gateway.admin_listen = listen;
    }
    if let Some(endpoint) = &args.endpoint {
        config.endpoint.clone_from(endpoint);
    }
    if let Some(file) = &args.ca_file {
        config.ca_file.clone_from(file);
    }
    if let Some(file) = &args.token_file {
        config.token_file.clone_from(file);
    }
    if let Some(name) = &args.name {
        config.name = Some(name.clone());
    }
    Ok(config)
}

fn backup(args: &Args, file: &Path) -> anyhow::Result<()> {
    let database = control_config(args)?.data_dir.join(DATABASE_FILE);
    let done = berth_store::backup(&database, file)
        .with_context(|| format!("no backup was made of {}", database.display()))?;
    say(&format!(
        "backed up {} to {} (epoch {}, revision {}).\nKeep with it: ca.key, ca.crt, the *.token files and \
         blobs/ of the same folder; the backup holds the state only.",
        database.display(),
        file.display(),
        done.epoch,
        done.revision,
    ))
}

fn restore(args: &Args, file: &Path) -> anyhow::Result<()> {
    let config = control_config(args)?;
    create_private(&config.data_dir)?;
    let database = config.data_dir.join(DATABASE_FILE);
    let done = berth_store::restore(file, &database)
        .with_context(|| format!("{} was not restored", file.display()))?;
    say(&format!(
        "restored {} into {} (epoch {}, revision {}).\nStart the coordinator: it first looks at what runs, then acts.",
        file.display(),
        database.display(),
        done.epoch,
        done.revision,
    ))
}

fn reload(args: &Args) -> anyhow::Result<()> {
    anyhow::ensure!(
        args.role == Role::Gateway,
        "only a gateway takes over while the old one serves: say --role gateway. A coordinator is simply \
         started anew; nothing is lost meanwhile"
    );
    let config = gateway_config(args)?;
    // The program as it is on disk now, with what it was called with but for the task itself.
    let mut command = std::process::Command::new(std::env::current_exe()?);
    let mut given: Vec<_> = std::env::args_os().skip(1).collect();
    if let Some(place) = given.iter().rposition(|arg| arg == RELOAD) {
        given.remove(place);
    }
    command.args(given);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let pid = runtime
        .block_on(gateway_role::reload(&config, command))
        .context("the gateway was not replaced")?;
    say(&format!(
        "process {pid} serves now; the old one finishes its requests"
    ))
}

fn say(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}").context("cannot write to standard output")
}

/// Cancelled by SIGTERM or SIGINT.
fn on_signal() -> anyhow::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let cancel = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        cancel.cancel();
    });
    Ok(token)
}

fn start_logging(format: LogFormat) {
    let filter = EnvFilter::try_from_env("BERTH_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,kube_client=off,kube_runtime=off"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}
