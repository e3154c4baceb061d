//! Reading a flat TOML file key by key, so that one look shows every mistake.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// Everything that is wrong with a configuration file.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// One message for each mistake, with its line where it has one.
    pub errors: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        for (i, error) in self.errors.iter().enumerate() {
            let newline = if i == 0 { "" } else { "\n" };
            write!(f, "{newline}{path}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// The keys of a file, taken one after the other; what is left at the end is unknown.
pub struct Keys {
    path: PathBuf,
    text: String,
    table: toml::Table,
    errors: Vec<String>,
}

impl Keys {
    /// Reads a file. Where `required` is false, a file that is not there is an empty one.
    pub fn read(path: &Path, required: bool) -> Result<Self, ConfigError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(path, text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => {
                Self::parse(path, String::new())
            }
            Err(error) => Err(ConfigError {
                path: path.to_owned(),
                errors: vec![format!(": cannot be read: {error}")],
            }),
        }
    }

    /// Parses a file's text.
    pub fn parse(path: &Path, text: String) -> Result<Self, ConfigError> {
        match text.parse() {
            Ok(table) => Ok(Self {
                path: path.to_owned(),
                text,
                table,
                errors: Vec::new(),
            }),
            Err(error) => Err(ConfigError {
                path: path.to_owned(),
                errors: vec![format!(
                    ":{}: {}",
                    error.span().map_or(1, |span| line_at(&text, span.start)),
                    error.message()
                )],
            }),
        }
    }

    /// Takes one key; `place` keeps its default if the key is not there.
    pub fn take<T: DeserializeOwned>(&mut self, key: &str, place: &mut T) {
        let Some(value) = self.table.remove(key) else {
            return;
        };
        match value.try_into() {
            Ok(value) => *place = value,
            Err(error) => self.wrong(key, error.message()),
        }
    }

    /// Reads all other keys into a type of its own, whose keys all have defaults.
    pub fn take_rest<T: DeserializeOwned>(&mut self) -> Option<T> {
        let rest = std::mem::take(&mut self.table);
        let mut good = toml::Table::new();
        for (key, value) in rest {
            let alone = toml::Table::from_iter([(key.clone(), value.clone())]);
            match alone.try_into::<T>() {
                Ok(_) => drop(good.insert(key, value)),
                Err(error) => self.wrong(&key, error.message()),
            }
        }
        match good.try_into() {
            Ok(rest) => Some(rest),
            Err(error) => {
                self.errors.push(format!(": {}", error.message()));
                None
            }
        }
    }

    /// Notes that a key's value will not do.
    pub fn wrong(&mut self, key: &str, problem: impl fmt::Display) {
        let problem = problem.to_string();
        let problem = problem.trim();
        let line = line_of(&self.text, key).map_or(String::new(), |line| format!(":{line}"));
        self.errors.push(format!("{line}: {key}: {problem}"));
    }

    /// Ends the reading. Errors: everything that was wrong, keys that nobody took among it.
    pub fn finish<T>(mut self, config: T) -> Result<T, ConfigError> {
        for key in std::mem::take(&mut self.table).keys() {
            self.wrong(key, "unknown key");
        }
        if self.errors.is_empty() {
            return Ok(config);
        }
        self.errors.sort_by_key(|error| {
            let digits = error[1..].split(':').next();
            digits.and_then(|line| line.parse::<usize>().ok())
        });
        Err(ConfigError {
            path: self.path,
            errors: self.errors,
        })
    }
}

fn line_at(text: &str, offset: usize) -> usize {
    let before = text.get(..offset).unwrap_or(text);
    before.matches('\n').count() + 1
}

/// Line of a top-level key, counted from 1.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let document = toml::de::DeTable::parse(text).ok()?;
    let (found, _) = document.get_ref().get_key_value(key)?;
    Some(line_at(text, found.span().start))
}

#[cfg(test)]
mod tests {
    use berth_model::time::Span;

    use super::*;

    #[derive(Debug, PartialEq, Default, serde::Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Rest {
        threads: u32,
    }

    fn keys(text: &str) -> Keys {
        Keys::parse(Path::new("x.toml"), text.to_owned()).unwrap()
    }

    #[test]
    fn every_mistake_is_told_at_once_with_its_line() {
        let mut keys = keys("lease = \"soon\"\n\nthreads = \"many\"\nleese = 1\n");
        let mut lease = Span::secs(1);
        keys.take("lease", &mut lease);
        keys.take_rest::<Rest>();
        let error = keys.finish(()).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.errors.len(), 3, "{text}");
        assert!(
            text.starts_with("x.toml:1: lease: \"soon\" is not a duration"),
            "{text}"
        );
        assert!(text.contains("\nx.toml:3: threads: invalid type"), "{text}");
        assert!(text.contains("\nx.toml:4: leese: unknown"), "{text}");
    }

    #[test]
    fn what_is_given_is_taken_and_the_rest_keeps_its_defaults() {
        let mut keys = keys("lease = \"5s\"\nthreads = 3\n");
        let (mut lease, mut name) = (Span::secs(1), "x".to_owned());
        keys.take("lease", &mut lease);
        keys.take("name", &mut name);
        let rest = keys.take_rest::<Rest>().unwrap();
        assert_eq!(
            keys.finish((lease, name, rest.threads)).unwrap(),
            (Span::secs(5), "x".to_owned(), 3)
        );
    }

    #[test]
    fn broken_toml_names_its_line() {
        let error = Keys::parse(Path::new("x.toml"), "a = 1\nb = \n".to_owned())
            .err()
            .unwrap();
        assert!(error.to_string().starts_with("x.toml:2: "), "{error}");
        assert!(Keys::read(Path::new("no-such-file.toml"), true).is_err());
        assert!(Keys::read(Path::new("no-such-file.toml"), false).is_ok());
    }
}
