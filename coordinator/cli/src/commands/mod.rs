//! What each command does.

mod cluster;
mod completions;
mod deploy;
mod down;
mod events;
mod fleet;
mod gateway;
mod job;
mod logs;
mod model;
mod node;
mod package;
mod pool;
mod predict;
mod service;
mod status;
mod up;

use std::process::ExitCode;

use anyhow::Result;

use crate::args::{Args, Command};
use crate::client::Client;

/// Carries a command out; the exit code where it is more than success or failure.
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::Up(up) => up::run(up).await?,
        Command::Down(down) => down::run(&down).await?,
        Command::Package(package) => package::run(package)?,
        Command::Model(model) => model::run(&Client::from_context()?, model).await?,
        Command::Deploy(deploy) => return deploy::run(&Client::from_context()?, deploy).await,
        Command::Plan(plan) => return fleet::plan(&Client::from_context()?, plan).await,
        Command::Apply(apply) => return fleet::apply(&Client::from_context()?, apply).await,
        Command::Export(export) => fleet::export(&Client::from_context()?, export).await?,
        Command::Service(service) => return service::run(&Client::from_context()?, service).await,
        Command::Predict(predict) => return predict::run(&Client::from_context()?, predict).await,
        Command::Job(job) => return job::run(&Client::from_context()?, job).await,
        Command::Logs(logs) => logs::run(&Client::from_context()?, logs).await?,
        Command::Pool(pool) => pool::run(&Client::from_context()?, pool).await?,
        Command::Gateway(gateway) => {
            gateway::run(&Client::from_context()?, gateway).await?;
        }
        Command::Node(node) => return node::run(&Client::from_context()?, node).await,
        Command::Cluster(cluster) => {
            cluster::run(&Client::from_context()?, cluster).await?;
        }
        Command::Events(events) => events::run(&Client::from_context()?, events).await?,
        Command::Status(reading) => status::run(&Client::from_context()?, reading).await?,
        Command::Completions { shell } => completions::run(shell)?,
    }
    Ok(ExitCode::SUCCESS)
}
