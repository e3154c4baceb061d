use berth_model::id::PoolName;
use clap::Subcommand;

use super::Reading;

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
