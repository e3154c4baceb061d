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
    if nobody_reads(error) {
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

/// Whether it is that what was to be written could not be: the reader went away, or the disk under the file is full. A
/// connection that broke is none of that.
pub(crate) fn is_output(error: &anyhow::Error) -> bool {
    error.chain().any(|e| e.is::<std::io::Error>())
        && !error.chain().any(|e| e.is::<reqwest::Error>())
}

/// Whether it is that the reader of standard output went away. A connection that broke is none of that.
pub(crate) fn nobody_reads(error: &anyhow::Error) -> bool {
    error.chain().any(is_broken_pipe) && !error.chain().any(|e| e.is::<reqwest::Error>())
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a request fails with whose connection breaks while the body is sent.
    async fn broken_connection() -> anyhow::Error {
        // As the program's own start does it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let pieces = futures_util::stream::iter([Err::<Vec<u8>, _>(std::io::Error::from(
            ErrorKind::BrokenPipe,
        ))]);
        let body = reqwest::Body::wrap_stream(pieces);
        let sent = reqwest::Client::new().post(url).body(body).send();
        sent.await.unwrap_err().into()
    }

    #[tokio::test]
    async fn a_reader_that_goes_is_no_failure_and_a_connection_that_breaks_is() {
        let broken = std::io::Error::from(ErrorKind::BrokenPipe);
        let reader = anyhow::Error::new(broken).context("cannot write the list");
        assert!(nobody_reads(&reader));
        let connection = broken_connection().await;
        assert!(connection.chain().any(is_broken_pipe), "{connection:?}");
        assert!(!nobody_reads(&connection));
        assert!(!nobody_reads(&Usage("x".to_owned()).into()));
    }
}
