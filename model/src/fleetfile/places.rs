//! Where in which file something is declared.

use std::collections::BTreeMap;

use crate::read::FileError;

/// Where the entries of some files and their keys stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// File, line and column by path, as in `service.web.env.LOG`.
    at: BTreeMap<String, (String, u32, u32)>,
}

impl Places {
    /// Notes a place; the first of a path counts. Answers where it was noted before.
    pub(super) fn note(
        &mut self,
        path: String,
        file: &str,
        (line, column): (u32, u32),
    ) -> Option<String> {
        if let Some(first) = self.at.get(&path) {
            return Some(shown(first));
        }
        self.at.insert(path, (file.to_owned(), line, column));
        None
    }

    /// The place of a path, or of what it is in.
    fn find(&self, path: &str) -> Option<&(String, u32, u32)> {
        let mut path = path;
        loop {
            if let Some(at) = self.at.get(path) {
                return Some(at);
            }
            path = path.rsplit_once('.')?.0;
        }
    }

    /// A message of the coordinator that begins with an entry's path, as in `service.web.pool: …`, with the
    /// place of that entry: `fleet.toml:7:8: [service.web] pool: …`. Others stay as they are.
    pub fn locate(&self, message: &str) -> String {
        match self.split(message) {
            Some((at, rest)) => format!("{}: {rest}", shown(at)),
            None => message.to_owned(),
        }
    }

    /// The same as a mistake in a file, if the path is in one.
    pub fn error(&self, message: &str) -> Option<(String, FileError)> {
        let ((file, line, column), message) = self.split(message)?;
        let error = FileError {
            line: *line,
            column: *column,
            message,
        };
        Some((file.clone(), error))
    }

    fn split(&self, message: &str) -> Option<(&(String, u32, u32), String)> {
        let (path, rest) = message.split_once(": ")?;
        let at = self.find(path)?;
        let mut parts = path.splitn(3, '.');
        let (kind, name) = (parts.next()?, parts.next());
        let key = parts.next().map(|key| format!(" {key}"));
        let key = key.unwrap_or_default();
        let text = match name {
            Some(name) => format!("[{kind}.{name}]{key}: {rest}"),
            None => format!("{kind}: {rest}"),
        };
        Some((at, text))
    }
}

fn shown((file, line, column): &(String, u32, u32)) -> String {
    format!("{file}:{line}:{column}")
}
