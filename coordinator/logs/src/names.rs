//! The names of a stream's processes, in a file of its folder.
//!
//! The stream declares them too, but at places that retention deletes and that a reader of the last lines
//! never sees.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;

use crate::{LogsError, disk};

const FILE: &str = "processes";

/// Names by index.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Names(BTreeMap<u8, String>);

impl Names {
    /// Reads the file; none is no names.
    pub(crate) fn load(dir: &Path) -> Result<Self, LogsError> {
        let path = dir.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(LogsError::io("read", &path)(error)),
        };
        let lines = text.lines().filter_map(|line| {
            let (index, name) = line.split_once(' ')?;
            Some((index.parse().ok()?, name.to_owned()))
        });
        Ok(Self(lines.collect()))
    }

    /// Writes the file.
    pub(crate) fn save(&self, dir: &Path) -> Result<(), LogsError> {
        let mut text = String::new();
        for (index, name) in &self.0 {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{index} {name}");
        }
        disk::write(&dir.join(FILE), text.as_bytes())
    }

    /// Takes a declaration: tells whether it is news.
    pub(crate) fn learn(&mut self, index: u8, name: &[u8]) -> bool {
        let name = String::from_utf8_lossy(name).replace(char::is_control, "\u{fffd}");
        self.0.get(&index) != Some(&name) && {
            self.0.insert(index, name);
            true
        }
    }

    /// The name of a process.
    pub(crate) fn of(&self, index: u8) -> String {
        match self.0.get(&index) {
            Some(name) => name.clone(),
            None => format!("process-{index}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_beside_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut names = Names::load(dir.path()).unwrap();
        assert_eq!(names.of(0), "process-0");
        assert!(names.learn(0, b"module"));
        assert!(!names.learn(0, b"module"));
        assert!(names.learn(1, b"a b\nc"));
        names.save(dir.path()).unwrap();
        let names = Names::load(dir.path()).unwrap();
        assert_eq!(
            (names.of(0), names.of(1)),
            ("module".into(), "a b\u{fffd}c".into())
        );
    }
}
