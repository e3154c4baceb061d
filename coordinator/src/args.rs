//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use berth_model::id::GatewayName;
use clap::{Parser, Subcommand, ValueEnum};

/// Berth's coordinator: desired state, planning, agents' sessions, admin API and logs; or, with
/// --role gateway, the process that carries the prediction traffic.
#[derive(Debug, Parser)]
#[command(name = "berth-coordinator", version)]
pub(crate) struct Args {
    /// Configuration file [default: /etc/berth/coordinator.toml or gateway.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data folder; wins over the configuration's data_dir
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// What this process is
    #[arg(long, value_enum, default_value_t = Role::Control)]
    pub(crate) role: Role,
    /// Address to listen on, port 0 for a free one; wins over the configuration
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Gateway: address of its metrics and probes; wins over the configuration
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) admin_listen: Option<SocketAddr>,
    /// Gateway: the coordinator; wins over the configuration
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) endpoint: Option<String>,
    /// Gateway: the coordinator's ca.crt; wins over the configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Gateway: the coordinator's gateway.token; wins over the configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Gateway: its name, unique in the fleet; wins over the configuration
    #[arg(long)]
    pub(crate) name: Option<GatewayName>,
    /// Form of the log on standard error; BERTH_LOG filters it
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) task: Option<Task>,
}

/// What the process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Desired state, planning, sessions, admin API, logs
    Control,
    /// Prediction traffic
    Gateway,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// For programs
    Json,
}

/// What is done instead of serving.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Copy the state to a file, consistently; the coordinator may run meanwhile
    Backup {
        /// Where to; replaced if it is there
        file: PathBuf,
    },
    /// Put a backup in the place of the state; the coordinator must not run. The state that is
    /// there is kept beside it
    Restore {
        /// A file that `backup` made
        file: PathBuf,
    },
    /// Gateway: start the program anew beside the running one, with the same arguments; return when the
    /// new one serves. No connection is refused meanwhile
    #[command(name = RELOAD)]
    Reload,
}

/// The task's name on the command line.
pub(crate) const RELOAD: &str = "reload";

impl Args {
    /// The configuration file, and whether it must be there.
    pub(crate) fn config_file(&self) -> (PathBuf, bool) {
        match (&self.config, self.role) {
            (Some(path), _) => (path.clone(), true),
            (None, Role::Control) => ("/etc/berth/coordinator.toml".into(), false),
            (None, Role::Gateway) => ("/etc/berth/gateway.toml".into(), false),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
        let args = Args::parse_from(["berth-coordinator", "backup", "x", "--data", "/d"]);
        assert!(matches!(args.task, Some(Task::Backup { .. })));
        assert_eq!(args.data, Some("/d".into()));
        let args = Args::parse_from(["berth-coordinator", "--role", "gateway"]);
        assert_eq!(
            args.config_file(),
            ("/etc/berth/gateway.toml".into(), false)
        );
    }
}
