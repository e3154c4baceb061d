//! What is wrong with a file that people write.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// More errors than this help nobody; the rest is counted.
const MOST_SHOWN: usize = 100;

/// One mistake in a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileError {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// What is wrong and what to write instead.
    pub message: String,
}

/// Every mistake in a file, in the order of the file. Shown one per line as
/// `berth.toml:7:3: unknown key "verison" in [package]; did you mean "version"?`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileErrors {
    /// The file's name as it is to be shown.
    pub file: String,
    /// The mistakes; at least one.
    pub errors: Vec<FileError>,
}

impl fmt::Display for FileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, error) in self.errors.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            write!(
                f,
                "{}:{}:{}: {}",
                self.file, error.line, error.column, error.message
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for FileErrors {}

/// Collects mistakes while a file is read.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    found: RefCell<Vec<Found>>,
}

#[derive(Debug)]
struct Found {
    offset: usize,
    message: String,
    /// The mistake is that something is not there.
    missing: bool,
}

impl Sink {
    /// Notes a mistake at a byte offset.
    pub(crate) fn report(&self, offset: usize, message: String) {
        self.found.borrow_mut().push(Found {
            offset,
            message,
            missing: false,
        });
    }

    /// Notes that something is not there.
    pub(crate) fn report_missing(&self, offset: usize, message: String) {
        self.found.borrow_mut().push(Found {
            offset,
            message,
            missing: true,
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.borrow().is_empty()
    }

    /// The collected mistakes. `syntax` holds those of the TOML parser: where there are any, what is
    /// "missing" may only have been unreadable, and what stands on the same line is a consequence.
    pub(crate) fn finish(self, text: &str, file: &str, syntax: Vec<(usize, String)>) -> FileErrors {
        let lines = Lines::new(text);
        let broken: BTreeSet<usize> = syntax.iter().map(|(at, _)| lines.line(*at)).collect();
        let mut found = syntax;
        for Found {
            offset,
            message,
            missing,
        } in self.found.into_inner()
        {
            if broken.is_empty() || (!missing && !broken.contains(&lines.line(offset))) {
                found.push((offset, message));
            }
        }
        found.sort();
        found.dedup();
        let more = found.len().saturating_sub(MOST_SHOWN);
        found.truncate(MOST_SHOWN);
        let mut errors: Vec<FileError> = found
            .into_iter()
            .map(|(at, message)| lines.locate(at, message))
            .collect();
        if more > 0
            && let Some(last) = errors.last_mut()
        {
            last.message.push_str(&format!(" (and {more} more errors)"));
        }
        FileErrors {
            file: file.to_owned(),
            errors,
        }
    }
}

/// Where the lines of a text start, so that locating many mistakes does not read it each time.
pub(crate) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let starts = std::iter::once(0)
            .chain(newlines.map(|(at, _)| at + 1))
            .collect();
        Self { text, starts }
    }

    /// The line's number, from 1.
    fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    /// Line and column of an offset, both from 1.
    pub(crate) fn position(&self, offset: usize) -> (u32, u32) {
        let end = self.text.floor_char_boundary(offset);
        let line = self.line(end);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let column = self.text[start..end].chars().count() + 1;
        (number(line), number(column))
    }

    fn locate(&self, offset: usize, message: String) -> FileError {
        let (line, column) = self.position(offset);
        FileError {
            line,
            column,
            message,
        }
    }
}
