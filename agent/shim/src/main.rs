//! `berth-shim`: runs the processes of one start of an instance, and outlives the agent.
//!
//! One per instance, so it must be tiny: no threads, no async runtime, one poll loop over signals, the
//! processes' output and timers.
#![deny(unsafe_code)]

mod confine;
mod ending;
mod memory;
mod output;
mod recorder;
mod spawn;
mod statefile;
mod supervise;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "usage: berth-shim run --dir DIR\n       berth-shim version\n";

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<Option<&str>> = arguments.iter().map(|word| word.to_str()).collect();
    match words.as_slice() {
        [Some("run"), Some("--dir"), _] => match supervise::run(Path::new(&arguments[2])) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                say(&chain(error.as_ref()));
                ExitCode::FAILURE
            }
        },
        [Some("version" | "--version")] => {
            let line = concat!("berth-shim ", env!("CARGO_PKG_VERSION"), "\n");
            match std::io::stdout().lock().write_all(line.as_bytes()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            }
        }
        _ => {
            say(USAGE);
            ExitCode::from(2)
        }
    }
}

/// An error with its sources, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = format!("berth-shim: {error}");
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text.push('\n');
    text
}

/// Writes to standard error, which the agent reads when a shim does not come up.
fn say(text: &str) {
    // There is nobody else to tell.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
