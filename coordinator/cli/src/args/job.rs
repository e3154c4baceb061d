use std::path::PathBuf;

use berth_model::id::JobName;
use berth_model::node::RuntimeKind;
use berth_model::time::Span;
use clap::Subcommand;

use super::{Logs, Reading, key_value};

#[derive(Debug, Subcommand)]
pub(crate) enum Job {
    /// Run a model over an input, once
    Run(JobRun),
    /// All jobs
    List(Reading),
    /// One job with its shards, its failures and why it does not get on
    Show {
        /// The job
        job: JobName,
        #[command(flatten)]
        reading: Reading,
    },
    /// Log lines of a job's tasks, also after its end
    Logs(Logs),
    /// The output: printed in the order of the shards, or written into a folder
    Output {
        /// The job
        job: JobName,
        /// Folder for part-00000, part-00001, …; made if it is not there
        #[arg(short = 'o', long = "output", value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Stop a job's tasks and forget it, its output and its logs; waits until all is gone
    Delete {
        /// The job
        job: JobName,
        /// Longest wait
        #[arg(long, default_value = "5m")]
        timeout: Span,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct JobRun {
    /// NAME, NAME@VERSION or NAME@#SERIAL; without a version the newest push
    pub(crate) model: String,
    /// The job's name [default: MODEL-N]
    #[arg(long)]
    pub(crate) name: Option<JobName>,
    /// What starts the tasks: process, docker or kubernetes
    #[arg(long)]
    pub(crate) runtime: Option<RuntimeKind>,
    /// Shards to cut the input into [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) completions: Option<u32>,
    /// Tasks at a time [default: as many as shards]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) parallelism: Option<u32>,
    /// Failed attempts that are made up for, of all tasks together [default: 3]
    #[arg(long, value_name = "N")]
    pub(crate) retries: Option<u32>,
    /// The longest the job may take, as in 30m
    #[arg(long, value_name = "D")]
    pub(crate) deadline: Option<Span>,
    /// A file, which is cut between its lines, or a folder, whose files are dealt out
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) input: Option<PathBuf>,
    /// The pool to place in
    #[arg(long)]
    pub(crate) pool: Option<String>,
    /// Environment variable for the tasks, NAME=VALUE
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = key_value)]
    pub(crate) env: Vec<(String, String)>,
    /// Show all log lines on standard error, and at the end print the output; exits as the job ended
    #[arg(short, long)]
    pub(crate) follow: bool,
}
