//! What TensorFlow Serving says of its troubles.
//!
//! Some of them it survives without ever being of use: then its log is all there is to go by.

use std::path::Path;

use berth_model::instance::Reason;
use berth_shim::state::LOGS_DIR;

use crate::logs::last_lines_up_to;
use crate::modules::MODULE;

/// How many of the last lines are read.
const LINES: usize = 40;

/// How much of a line is shown: it names files, and says several times over why.
const LONGEST: usize = 2000;

/// How a server begins its last line when it cannot start.
const CANNOT_START: &str = "Failed to start server. Error: ";

/// How it begins to say that it goes on without REST.
const NO_REST: &str = "Failed to start HTTP Server at ";

/// What it says, again and again, of a model that it will never serve.
const NO_MODEL: [&str; 2] = [
    "FileSystemStoragePathSource encountered a filesystem access error: ",
    "No versions of servable ",
];

/// A trouble that does not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// The model cannot be loaded.
    Load(String),
    /// It could not listen for REST.
    NoRest,
}

/// What the server of a start that still runs says of its troubles.
pub fn of_running(dir: &Path) -> Option<Said> {
    trouble(&last_lines_up_to(&dir.join(LOGS_DIR), LINES, LONGEST))
}

/// The reason of a start's end, in its server's own words if it gave some.
pub fn of_end(reason: Reason, dir: &Path) -> Reason {
    refine(
        reason,
        &last_lines_up_to(&dir.join(LOGS_DIR), LINES, LONGEST),
    )
}

/// What the last lines tell, if anything.
fn trouble(lines: &[String]) -> Option<Said> {
    lines.iter().rev().find_map(|line| {
        let said = message(line);
        if said.starts_with(NO_REST) {
            return Some(Said::NoRest);
        }
        if let Some(error) = said.strip_prefix(CANNOT_START) {
            return Some(Said::Load(error.to_owned()));
        }
        let [access, versions] = NO_MODEL;
        if let Some(error) = said.strip_prefix(access) {
            return Some(Said::Load(error.to_owned()));
        }
        said.starts_with(versions)
            .then(|| Said::Load(said.to_owned()))
    })
}

fn refine(reason: Reason, lines: &[String]) -> Reason {
    let exited = matches!(&reason, Reason::Exited { process, .. } if process == MODULE);
    match trouble(lines) {
        Some(Said::Load(error)) if exited => Reason::ModelLoad { error },
        _ => reason,
    }
}

/// A line without the time, severity and place that logging puts before: `… E path/to/file.cc:12] text`.
fn message(line: &str) -> &str {
    match line.split_once("] ") {
        Some((before, after)) if before.contains(".cc:") => after,
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[&str]) -> Vec<String> {
        text.iter().map(|&line| line.to_owned()).collect()
    }

    const ABSENT: &str = "2026-11-22 10:00:01.123456: E tensorflow_serving/sources/storage_path/\
        file_system_storage_path_source.cc:362] FileSystemStoragePathSource encountered a filesystem access error: \
        Could not find base path /m for servable m with error NOT_FOUND: /m not found";

    #[test]
    fn troubles_are_found_among_other_lines() {
        let other = "2026-11-22 10:00:01.1: I external/org_tensorflow/x.cc:54] Reading meta graph";
        assert_eq!(trouble(&lines(&[other, "", "E a.cc:1]"])), None);
        let Some(Said::Load(error)) = trouble(&lines(&[other, ABSENT, other])) else {
            panic!()
        };
        assert!(error.starts_with("Could not find base path /m"), "{error}");
        let rest = "… E tensorflow_serving/model_servers/server.cc:442] Failed to start HTTP Server at localhost:1";
        assert_eq!(trouble(&lines(&[rest])), Some(Said::NoRest));
        // Somebody's text that only looks like it.
        assert_eq!(
            trouble(&lines(&["log: Failed to start HTTP Server at x"])),
            None
        );
    }

    #[test]
    fn an_exit_is_told_in_the_servers_words_and_another_end_is_not() {
        let said = "Failed to start server. Error: UNKNOWN: 1 servable(s) did not become available: {{{name: m \
                    version: 1} due to error: DATA_LOSS: bad}, }";
        let exited = |process: &str| Reason::Exited {
            process: process.to_owned(),
            code: 255,
        };
        let Reason::ModelLoad { error } = refine(exited(MODULE), &lines(&["x", said])) else {
            panic!()
        };
        assert!(error.starts_with("UNKNOWN: 1 servable(s)"), "{error}");
        let transform = exited("transform");
        assert_eq!(refine(transform.clone(), &lines(&[said])), transform);
        assert_eq!(refine(exited(MODULE), &lines(&["x"])), exited(MODULE));
        let killed = Reason::Signaled {
            process: MODULE.to_owned(),
            signal: 9,
        };
        assert_eq!(refine(killed.clone(), &lines(&[said])), killed);
    }
}
