//! The command line. What is said here is validated and does no I/O; the commands do the rest.

mod fleet;
mod job;
mod node;

use std::path::PathBuf;

use berth_model::id::{GatewayName, ServiceName};
use berth_model::node::RuntimeKind;
use berth_model::time::Span;
use clap::{Parser, Subcommand, ValueEnum};

pub(crate) use self::fleet::{Apply, Export, ExportFormat, FleetFiles, Plan, Pool};
pub(crate) use self::job::{Job, JobRun};
pub(crate) use self::node::{Drain, Label, Node, Token};
use crate::output::Format;

/// Serve models on the machines you own.
#[derive(Debug, Parser)]
#[command(name = "berth", version, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole Berth on this machine: coordinator, gateway and nodes
    Up(Up),
    /// Stop what `up` started; what is deployed is there again with the next `up`
    Down(Down),
    /// Make and check service packages
    #[command(subcommand)]
    Package(Package),
    /// Registered models and their versions
    #[command(subcommand)]
    Model(Model),
    /// What applying fleet files would change, field by field, and what that moves
    Plan(Plan),
    /// Make the fleet as fleet files declare it: all of it or nothing
    Apply(Apply),
    /// What there is, as a fleet file
    Export(Export),
    /// Run a model as a service, or give a service a new revision
    Deploy(Deploy),
    /// What is deployed
    #[command(subcommand)]
    Service(Service),
    /// Send a prediction request through the gateway
    Predict(Predict),
    /// Inference that runs to its end
    #[command(subcommand)]
    Job(Job),
    /// Log lines of a service, an instance or a job
    Logs(Logs),
    /// The machines
    #[command(subcommand)]
    Node(Node),
    /// Named sets of nodes
    #[command(subcommand)]
    Pool(Pool),
    /// The gateways
    #[command(subcommand)]
    Gateway(Gateway),
    /// The Kubernetes clusters
    #[command(subcommand)]
    Cluster(Cluster),
    /// What happened
    Events(Events),
    /// What is wrong?
    Status(Reading),
    /// Completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// How a reading command answers.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Reading {
    /// How to write it
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Up {
    /// Local nodes (virtual: one instance each)
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(0..=64))]
    pub(crate) nodes: u16,
    /// Where everything is kept [default: ~/.local/share/berth]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Return when everything is ready instead of waiting for Ctrl-C
    #[arg(long)]
    pub(crate) detach: bool,
    /// Port of the admin API; 0 takes a free one
    #[arg(long, value_name = "P", default_value_t = 7450)]
    pub(crate) api_port: u16,
    /// Port of the gateway; 0 takes a free one
    #[arg(long, value_name = "P", default_value_t = 7480)]
    pub(crate) gateway_port: u16,
    /// First port of the instances; each node has a hundred
    #[arg(long, value_name = "P", default_value_t = 21_000, hide = true)]
    pub(crate) port_base: u16,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Down {
    /// The folder given to `up` [default: ~/.local/share/berth]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Package {
    /// Write a small package that works as it is
    Init {
        /// The folder to make; its name becomes the model's
        dir: PathBuf,
        /// What it is to be made of
        #[arg(long, value_enum, default_value_t)]
        template: Template,
    },
    /// Pack a folder into an archive
    Build {
        /// The package's folder
        dir: PathBuf,
        /// The archive to write [default: NAME-VERSION.tar.zst]
        #[arg(short = 'o', long = "output", value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Show what is in an archive
    Inspect {
        /// The archive
        file: PathBuf,
        #[command(flatten)]
        reading: Reading,
    },
    /// Check an archive against every rule and tell its digest
    Verify {
        /// The archive
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Model {
    /// Upload a package and register it as a model version
    Push {
        /// An archive, or a package's folder
        package: PathBuf,
    },
    /// All models
    List(Reading),
    /// One model with its versions
    Show {
        /// The model
        name: String,
        #[command(flatten)]
        reading: Reading,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Deploy {
    /// NAME, NAME@VERSION or NAME@#SERIAL; without a version the newest push
    pub(crate) model: String,
    /// The service's name [default: the model's]
    #[arg(long)]
    pub(crate) service: Option<ServiceName>,
    /// How many instances [default: what the service has, or 1]
    #[arg(long)]
    pub(crate) replicas: Option<u32>,
    /// What starts the module: process, docker or kubernetes
    #[arg(long)]
    pub(crate) runtime: Option<RuntimeKind>,
    /// The pool to place in
    #[arg(long)]
    pub(crate) pool: Option<String>,
    /// Labels of the failure domains to spread over, the widest first, with commas; "" for none [default:
    /// zone,rack,host]
    #[arg(long, value_name = "LABELS", value_parser = labels)]
    pub(crate) spread: Option<Labels>,
    /// Environment variable for the module, NAME=VALUE
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = key_value)]
    pub(crate) env: Vec<(String, String)>,
    /// Instances that may be missing at a time during a change without spare places [default: what the service
    /// has, or 1]
    #[arg(long, value_name = "N")]
    pub(crate) max_unavailable: Option<u32>,
    /// Wait until the service is as wanted
    #[arg(long)]
    pub(crate) wait: bool,
    /// Longest wait
    #[arg(long, default_value = "5m")]
    pub(crate) timeout: Span,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Service {
    /// All services
    List(Reading),
    /// One service with its instances and why it is not as wanted
    Show {
        /// The service
        service: ServiceName,
        #[command(flatten)]
        reading: Reading,
    },
    /// Change how many instances a service has
    Scale {
        /// The service
        service: ServiceName,
        /// How many instances
        replicas: u32,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Drain and stop all of a service's instances and forget it
    Delete {
        /// The service
        service: ServiceName,
        #[command(flatten)]
        waiting: Waiting,
    },
}

/// Whether to wait for the end of what was begun.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Waiting {
    /// Wait until it is done
    #[arg(long)]
    pub(crate) wait: bool,
    /// Longest wait
    #[arg(long, default_value = "5m")]
    pub(crate) timeout: Span,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Predict {
    /// The service
    pub(crate) service: ServiceName,
    /// Body: JSON, @FILE, or @- for standard input
    #[arg(
        short = 'd',
        long = "data",
        value_name = "JSON|@FILE",
        default_value = "@-"
    )]
    pub(crate) data: String,
    /// Say which instance answered, on standard error
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Logs {
    /// A service, a job, or an instance (SERVICE.REVISION.ORDINAL.ATTEMPT)
    pub(crate) subject: String,
    /// Go on with the lines that come; a job's end with the job
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only lines of the last so long, as in 10m
    #[arg(long, value_name = "D")]
    pub(crate) since: Option<Span>,
    /// Only lines that match this regular expression
    #[arg(long, value_name = "RE")]
    pub(crate) grep: Option<String>,
    /// Only the last lines
    #[arg(long, value_name = "N")]
    pub(crate) tail: Option<usize>,
    /// How to write them: `table` is for people, one line each; json is one object a line
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Gateway {
    /// All gateways
    List(Reading),
    /// Send a gateway away: it follows no table any more, and no relay lets it in
    Revoke {
        /// The gateway
        gateway: GatewayName,
    },
    /// Forget a gateway that is gone, or let one that was revoked come again
    Remove {
        /// The gateway
        gateway: GatewayName,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// All clusters
    List(Reading),
    /// One cluster
    Show {
        /// The cluster
        cluster: String,
        #[command(flatten)]
        reading: Reading,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Events {
    /// Go on with what happens next
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// How to write them
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

/// A list of labels.
#[derive(Debug, Clone)]
pub(crate) struct Labels(pub(crate) Vec<String>);

fn labels(text: &str) -> Result<Labels, String> {
    let labels = text
        .split(',')
        .map(str::trim)
        .filter(|label| !label.is_empty());
    let labels: Vec<String> = labels.map(str::to_owned).collect();
    berth_model::api::rules::spread(&labels).map(|()| Labels(labels))
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not NAME=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn mistakes_are_usage_errors() {
        for bad in [
            vec!["berth"],
            vec!["berth", "deploy"],
            vec!["berth", "deploy", "x", "--replicas", "many"],
            vec!["berth", "deploy", "x", "--env", "novalue"],
            vec!["berth", "logs", "x", "--since", "10"],
            vec!["berth", "service", "scale", "Web", "2"],
            vec!["berth", "node", "remove", "../x"],
            vec!["berth", "node", "label", "n1"],
            vec!["berth", "node", "label", "n1", "zone"],
            vec!["berth", "node", "drain", "n1", "--deadline", "10"],
            vec!["berth", "status", "-o", "xml"],
            vec!["berth", "plan"],
            vec!["berth", "apply", "--prune"],
            vec!["berth", "export", "--fleet", "A"],
            vec!["berth", "job", "run"],
            vec!["berth", "job", "run", "x", "--completions", "0"],
            vec!["berth", "job", "run", "x", "--deadline", "10"],
            vec!["berth", "job", "output", "A"],
        ] {
            let error = Args::try_parse_from(&bad).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{bad:?}");
        }
    }
}

/// What `berth package init` begins with.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum Template {
    /// A Python server of the standard library alone
    #[default]
    Plain,
    /// Flask under gunicorn
    Flask,
    /// FastAPI under uvicorn
    Fastapi,
    /// An ONNX model under ONNX Runtime
    Onnx,
    /// A SavedModel for TensorFlow Serving
    TfServing,
    /// A program that listens on $PORT
    Binary,
}

impl From<Template> for berth_package::Template {
    fn from(template: Template) -> Self {
        match template {
            Template::Plain => Self::Plain,
            Template::Flask => Self::Flask,
            Template::Fastapi => Self::Fastapi,
            Template::Onnx => Self::Onnx,
            Template::TfServing => Self::TfServing,
            Template::Binary => Self::Binary,
        }
    }
}
