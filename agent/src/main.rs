//! `berth-agent`: keeps one node at what the coordinator wants.
#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    match cli::execute(&arguments) {
        Ok(code) => code,
        Err(error) => {
            use std::io::Write;
            // Nobody to tell if stderr is closed.
            let _ = writeln!(std::io::stderr().lock(), "berth-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
