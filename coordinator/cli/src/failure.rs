//! How a command fails: exit code and words.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use berth_model::problem::Problem;

/// A mistake in how the command was called, found after the arguments were parsed. Exit code 2.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Writes the error to standard error; the exit code to end with. A reader that went away (`| head`)
/// is a success.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if error.chain().any(is_broken_pipe) {
        return ExitCode::SUCCESS;
    }
    let mut stderr = std::io::stderr().lock();
    // Nobody is left to tell when standard error is gone.
    let _ = match error.downcast_ref::<Problem>() {
        Some(problem) => write!(stderr, "{}", words(problem)),
        None => writeln!(stderr, "error: {error:#}"),
    };
    if error.is::<Usage>() {
        ExitCode::from(2)
    } else {
        ExitCode::FAILURE
    }
}

fn words(problem: &Problem) -> String {
    let mut text = format!("error: {}\n", problem.detail);
    for error in &problem.errors {
        text.push_str(&format!("  {error}\n"));
    }
    if problem.status == 401 {
        text.push_str("  the token of this context is wrong or missing: see BERTH_TOKEN and ~/.config/berth/config.toml\n");
    }
    text
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
}
