//! `berth plan`, `apply`, `export` and `pool`.

use std::path::PathBuf;

use berth_model::id::{FleetName, PoolName};
use berth_model::time::Span;
use clap::{Subcommand, ValueEnum};

use super::Reading;

/// Fleet files, and how far they reach.
#[derive(Debug, clap::Args)]
pub(crate) struct FleetFiles {
    /// Fleet files, folders of them (every *.toml in them), or - for standard input
    #[arg(
        short = 'f',
        long = "file",
        value_name = "FILE|DIR|-",
        required = true,
        num_args = 1..,
    )]
    pub(crate) files: Vec<PathBuf>,
    /// Remove what earlier applies of these files' fleet declared and what is not in them any more
    #[arg(long)]
    pub(crate) prune: bool,
    /// Take over what another fleet's files declare
    #[arg(long)]
    pub(crate) adopt: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    pub(crate) files: FleetFiles,
    /// Exit with 3 if there is something to do
    #[arg(long)]
    pub(crate) exit_code: bool,
    /// Keep the plan in a file for `berth apply --plan`
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) reading: Reading,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Apply {
    #[command(flatten)]
    pub(crate) files: FleetFiles,
    /// Only if it would do what this plan says (`berth plan --save FILE`): refused if anything that the plan
    /// was made from has changed
    #[arg(long, value_name = "FILE")]
    pub(crate) plan: Option<PathBuf>,
    /// Wait until every declared service is ready, every declared job is over, and what was pruned is gone; it
    /// fails if a job has failed
    #[arg(long)]
    pub(crate) wait: bool,
    /// Longest wait
    #[arg(long, default_value = "5m")]
    pub(crate) timeout: Span,
    #[command(flatten)]
    pub(crate) reading: Reading,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Export {
    /// Whose things, beside those made by hand; needed where several fleets' files declare things
    #[arg(long)]
    pub(crate) fleet: Option<FleetName>,
    /// How to write it
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: ExportFormat,
}

/// How an export is written.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum ExportFormat {
    /// A fleet file
    #[default]
    Toml,
    /// The API's own JSON
    Json,
    /// The same as YAML
    Yaml,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Pool {
    /// All pools that have a record; fleet files make them
    List(Reading),
    /// One pool with what it chooses by, what is in it and what is placed there
    Show {
        /// The pool
        pool: PoolName,
        #[command(flatten)]
        reading: Reading,
    },
}
