//! `berth-driver`: turns the rows of a job's shard into predictions.
//!
//! It runs beside the module of a task, waits until that is ready, posts the rows in batches, and writes
//! the predictions in the order of the rows. Its exit code tells what went wrong: see [`Failure::code`].
#![forbid(unsafe_code)]

mod answer;
mod client;
mod failure;
mod output;
mod pipeline;
mod ready;
mod rows;
mod settings;
mod shard;

use std::io::Write;
use std::process::ExitCode;

use failure::Failure;
use settings::Settings;

const USAGE: &str = "usage: berth-driver            works off BERTH_JOB_INPUT
       berth-driver version

Berth starts it beside a job's module and tells it by its environment what to do.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        [] => work(),
        ["version" | "--version"] => {
            say(concat!("berth-driver ", env!("CARGO_PKG_VERSION")));
            Ok(())
        }
        _ => {
            // Nobody to tell if stderr is closed.
            let _ = std::io::stderr().write_all(USAGE.as_bytes());
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "berth-driver: {}", failure.chain());
            // Requests that are still under way end with the process.
            ExitCode::from(failure.code())
        }
    }
}

fn work() -> Result<(), Failure> {
    let settings = Settings::from_env(&|name| std::env::var(name).ok())?;
    shard::work(&settings)
}

/// Writes a line to standard output, which Berth keeps as the job's log.
fn say(line: &str) {
    // A log that nobody takes must not fail the job.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
