use anyhow::Result;
use clap::CommandFactory;

use crate::args::Args;
use crate::output;

pub(super) fn run(shell: clap_complete::Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "berth", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}
