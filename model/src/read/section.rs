//! One table of the manifest, read key by key.

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::Sink;
use super::suggest::did_you_mean;

/// A value with its place in the file.
pub(crate) type Value<'i> = Spanned<DeValue<'i>>;

/// A value on its way to becoming something typed, with the name to complain under.
pub(crate) struct Field<'a, 'i> {
    /// The value.
    pub(crate) value: &'a Value<'i>,
    what: &'a str,
    sink: &'a Sink,
}

impl<'a, 'i> Field<'a, 'i> {
    /// Reports a mistake in this value.
    pub(crate) fn fail<T>(&self, message: &str) -> Option<T> {
        self.fail_at(self.value.span().start, message)
    }

    /// Reports a mistake at a byte offset of its own, such as a key's.
    pub(crate) fn fail_at<T>(&self, offset: usize, message: &str) -> Option<T> {
        self.sink
            .report(offset, format!("{}: {message}", self.what));
        None
    }

    /// Reports that the value is of the wrong type.
    pub(crate) fn expected<T>(&self, wanted: &str) -> Option<T> {
        self.fail(&format!(
            "expected {wanted}, found {}",
            article(self.value.get_ref())
        ))
    }

    /// The same field at a value inside of it.
    pub(crate) fn inner<'b>(&'b self, value: &'b Value<'i>) -> Field<'b, 'i>
    where
        'a: 'b,
    {
        Field {
            value,
            what: self.what,
            sink: self.sink,
        }
    }
}

impl<'a, 'i> Field<'a, 'i> {
    /// The value as a table whose keys are known.
    pub(crate) fn section(&self, known: &[&str]) -> Option<Section<'a, 'i>> {
        let DeValue::Table(table) = self.value.get_ref() else {
            return self.expected("a table");
        };
        let offset = self.value.span().start;
        Some(Section::new(self.what, table, offset, known, self.sink))
    }
}

/// One table in a table of tables.
pub(crate) struct Entry<'a, 'i> {
    /// Its name.
    pub(crate) name: &'a str,
    /// Where the name stands.
    pub(crate) offset: usize,
    /// The table.
    pub(crate) table: &'a DeTable<'i>,
}

impl Entry<'_, '_> {
    /// Its keys with the places of their values; those of tables in it as `KEY.INNER`, too.
    pub(crate) fn keys(&self) -> Vec<(String, usize)> {
        let mut found = Vec::new();
        for (key, value) in self.table {
            let name = key.get_ref().as_ref();
            found.push((name.to_owned(), value.span().start));
            if let DeValue::Table(inner) = value.get_ref() {
                let inner = inner.iter();
                found.extend(
                    inner.map(|(k, v)| (format!("{name}.{}", k.get_ref()), v.span().start)),
                );
            }
        }
        found
    }
}

fn article(value: &DeValue<'_>) -> String {
    let kind = value.type_str();
    let article = if kind.starts_with(['a', 'i']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {kind}")
}

/// A table whose keys are known.
pub(crate) struct Section<'a, 'i> {
    label: &'a str,
    table: &'a DeTable<'i>,
    offset: usize,
    sink: &'a Sink,
}

impl<'a, 'i> Section<'a, 'i> {
    /// Takes a table and reports the keys that are not among `known`.
    pub(crate) fn new(
        label: &'a str,
        table: &'a DeTable<'i>,
        offset: usize,
        known: &[&str],
        sink: &'a Sink,
    ) -> Self {
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                sink.report(
                    key.span().start,
                    format!(
                        "unknown key {name:?} in {label}{}",
                        did_you_mean(name, known)
                    ),
                );
            }
        }
        Self {
            label,
            table,
            offset,
            sink,
        }
    }

    /// Reports a mistake of the section as a whole, or of one key where it is there.
    pub(crate) fn fail<T>(&self, key: Option<&str>, message: &str) -> Option<T> {
        let at = key
            .and_then(|key| self.table.get(key))
            .map_or(self.offset, |value| value.span().start);
        self.sink.report(at, format!("{}: {message}", self.label));
        None
    }

    /// Reports that a key which is needed is not there.
    pub(crate) fn missing<T>(&self, message: &str) -> Option<T> {
        self.sink.report_missing(self.offset, message.to_owned());
        None
    }

    /// Whether the key is there, rightly typed or not.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The key's value converted: `Some(None)` when it is not there, `None` when it is wrong.
    pub(crate) fn optional<T>(
        &self,
        key: &str,
        convert: impl FnOnce(Field<'_, 'i>) -> Option<T>,
    ) -> Option<Option<T>> {
        let Some(value) = self.table.get(key) else {
            return Some(None);
        };
        let what = format!("{} {key}", self.label);
        convert(Field {
            value,
            what: &what,
            sink: self.sink,
        })
        .map(Some)
    }

    /// The key's value converted, or `default` when it is not there.
    pub(crate) fn or<T>(
        &self,
        key: &str,
        default: T,
        convert: impl FnOnce(Field<'_, 'i>) -> Option<T>,
    ) -> Option<T> {
        self.optional(key, convert)
            .map(|value| value.unwrap_or(default))
    }

    /// The key's value converted; not being there is a mistake.
    pub(crate) fn required<T>(
        &self,
        key: &str,
        convert: impl FnOnce(Field<'_, 'i>) -> Option<T>,
    ) -> Option<T> {
        match self.optional(key, convert)? {
            Some(value) => Some(value),
            None => self.missing(&format!("missing key {key:?} in {}", self.label)),
        }
    }

    /// A table below this one, `Some(None)` when it is not there.
    pub(crate) fn section(
        &self,
        key: &str,
        label: &'a str,
        known: &[&str],
    ) -> Option<Option<Section<'a, 'i>>> {
        let Some(value) = self.table.get(key) else {
            return Some(None);
        };
        match value.get_ref() {
            DeValue::Table(table) => Some(Some(Section::new(
                label,
                table,
                value.span().start,
                known,
                self.sink,
            ))),
            other => {
                let message = format!("{label}: expected a table, found {}", article(other));
                self.sink.report(value.span().start, message);
                None
            }
        }
    }

    /// The tables of a table of tables; nothing when it is not there.
    pub(crate) fn entries(&self, key: &str) -> Vec<Entry<'a, 'i>> {
        let Some(value) = self.table.get(key) else {
            return Vec::new();
        };
        let wrong = |offset, value: &DeValue<'_>| {
            let message = format!(
                "[{key}]: expected a table for each name, written [{key}.NAME], found {}",
                article(value)
            );
            self.sink.report(offset, message);
        };
        let DeValue::Table(table) = value.get_ref() else {
            wrong(value.span().start, value.get_ref());
            return Vec::new();
        };
        let mut found = Vec::new();
        for (name, value) in table {
            let offset = name.span().start;
            match value.get_ref() {
                DeValue::Table(table) => found.push(Entry {
                    name: name.get_ref().as_ref(),
                    offset,
                    table,
                }),
                other => wrong(offset, other),
            }
        }
        found
    }

    /// The tables of an array of tables, each as a section; nothing when it is not there.
    pub(crate) fn sections(
        &self,
        key: &str,
        label: &'a str,
        known: &[&str],
    ) -> Option<Vec<Section<'a, 'i>>> {
        let Some(value) = self.table.get(key) else {
            return Some(Vec::new());
        };
        let wrong = |value: &Value<'_>| {
            let message = format!("{label}: expected an array of tables, written {label}");
            self.sink.report(value.span().start, message);
        };
        let DeValue::Array(items) = value.get_ref() else {
            wrong(value);
            return None;
        };
        let sections: Vec<_> = items
            .iter()
            .filter_map(|item| match item.get_ref() {
                DeValue::Table(table) => Some(Section::new(
                    label,
                    table,
                    item.span().start,
                    known,
                    self.sink,
                )),
                _ => {
                    wrong(item);
                    None
                }
            })
            .collect();
        (sections.len() == items.len()).then_some(sections)
    }
}
