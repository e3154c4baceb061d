//! Why the driver gives up.

use std::io;
use std::path::{Path, PathBuf};

/// Why the driver gives up. Every text says what happened, to what, and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// It was not told what it needs to know.
    #[error("{0}")]
    Settings(String),
    /// The input cannot be read.
    #[error("cannot read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A row is not what it should be.
    #[error("row {row} of {path:?} {problem}: {begin}")]
    Row {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        row: u64,
        /// What is wrong with it.
        problem: String,
        /// How it begins.
        begin: String,
    },
    /// The module did not get ready.
    #[error(
        "{what} was not ready within {seconds} s ({last}); [health] start_timeout says how long that may take"
    )]
    NotReady {
        /// What was asked.
        what: String,
        /// How long was waited.
        seconds: f64,
        /// What the last question brought.
        last: String,
    },
    /// The model server says that it cannot load the model.
    #[error("the model cannot be loaded: {0}")]
    ModelLoad(String),
    /// The server does not take a row.
    #[error(
        "row {row} of {path:?} was refused with status {status}: {words}\nthe row begins: {begin}"
    )]
    Refused {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        row: u64,
        /// The HTTP status.
        status: u16,
        /// What the server said.
        words: String,
        /// How the row begins.
        begin: String,
    },
    /// The server's answer makes no sense.
    #[error("the answer to rows {first} to {last} of {path:?} {problem}")]
    Answer {
        /// The file.
        path: PathBuf,
        /// First row that was asked about.
        first: u64,
        /// Last one.
        last: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// No answer came for too long.
    #[error("rows {first} to {last} of {path:?} got no answer within {seconds} s: {trouble}")]
    Unreachable {
        /// The file.
        path: PathBuf,
        /// First row that was asked about.
        first: u64,
        /// Last one.
        last: u64,
        /// How long it was tried.
        seconds: u64,
        /// What the last attempt brought.
        trouble: String,
    },
    /// The output cannot be written.
    #[error("cannot write {path:?}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl Failure {
    /// The exit code; documented in `docs/jobs.md`.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Settings(_) => 2,
            Self::Read { .. } | Self::Row { .. } => 3,
            Self::NotReady { .. } | Self::ModelLoad(_) => 4,
            Self::Refused { .. } | Self::Answer { .. } | Self::Unreachable { .. } => 5,
            Self::Write { .. } => 6,
        }
    }

    /// The text with its cause.
    pub(crate) fn chain(&self) -> String {
        match std::error::Error::source(self) {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        }
    }

    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Read { path, source }
    }

    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Write { path, source }
    }
}

/// The beginning of a text, for people.
pub(crate) fn beginning(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
