//! What to read.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use berth_model::id::{InstanceId, ServiceName};

use crate::{KeyError, StreamKey};

/// Whose lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All instances of a service, of all revisions.
    Service(ServiceName),
    /// One instance, all its starts.
    Instance(InstanceId),
}

impl Scope {
    /// The service, or that of the instance.
    pub fn service(&self) -> &ServiceName {
        match self {
            Self::Service(name) => name,
            Self::Instance(id) => &id.slot.service,
        }
    }
}

/// Which lines. [`Query::of`] is all of them.
#[derive(Debug, Clone)]
pub struct Query {
    /// Whose.
    pub scope: Scope,
    /// Only lines of this time or later, Unix nanoseconds.
    pub since: Option<u64>,
    /// Only lines of this time or earlier, Unix nanoseconds.
    pub until: Option<u64>,
    /// Only lines that match. A [`partial`](berth_model::record::LogLine::partial) line's parts are
    /// looked at one by one.
    pub grep: Option<regex::Regex>,
    /// Only the last so many of the lines that match all else (when following: of those there are
    /// already).
    pub tail: Option<usize>,
    /// End after so many lines.
    pub limit: Option<usize>,
}

impl Query {
    /// All lines of a service or an instance.
    pub fn of(scope: Scope) -> Self {
        Self {
            scope,
            since: None,
            until: None,
            grep: None,
            tail: None,
            limit: None,
        }
    }
}

/// Where a reader stands in each stream: the offset of the next frame. A text, so that a client can
/// come back with it: `STREAM=OFFSET`, separated by commas.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor(pub(crate) BTreeMap<StreamKey, u64>);

/// A text is not a cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a place in a log")]
pub struct CursorError {
    text: String,
    source: Option<KeyError>,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (stream, offset)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{stream}={offset}")?;
        }
        Ok(())
    }
}

impl FromStr for Cursor {
    type Err = CursorError;
    fn from_str(text: &str) -> Result<Self, CursorError> {
        let bad = |part: &str, source| CursorError {
            text: part.to_owned(),
            source,
        };
        let parts = text.split(',').filter(|part| !part.is_empty());
        let places = parts.map(|part| {
            let (stream, offset) = part.split_once('=').ok_or_else(|| bad(part, None))?;
            let stream = stream.parse().map_err(|error| bad(part, Some(error)))?;
            Ok((stream, offset.parse().map_err(|_| bad(part, None))?))
        });
        places.collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_have_a_text() {
        let boot = "0f3a1c52-9a8e-4c1b-8f5e-5f7c6b1d2e3f";
        let text = format!("web.1.0.2/1-{boot}=20,web.1.1.1/7-{boot}=0");
        let cursor: Cursor = text.parse().unwrap();
        assert_eq!(cursor.to_string(), text);
        assert_eq!("".parse(), Ok(Cursor::default()));
        for bad in ["x", "web.1.0.2/1-x=5", &format!("web.1.0.2/1-{boot}=x")] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }
}
