//! Conversions between wire types and words. Errors name the field.

mod facts;
mod instance;
mod order;
mod relay;

/// A message that does not say what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field {field}: {problem}")]
pub struct ConvertError {
    /// The field's path, as in `instances[2].id`.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

impl ConvertError {
    pub(crate) fn new(field: &str, problem: impl ToString) -> Self {
        Self {
            field: field.to_owned(),
            problem: problem.to_string(),
        }
    }
}

/// Parses one text field, naming it in the error.
pub(crate) fn field<T>(name: &str, text: &str) -> Result<T, ConvertError>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    text.parse().map_err(|error| ConvertError::new(name, error))
}

/// Parses one field that carries JSON, naming it in the error.
pub(crate) fn json<T: serde::de::DeserializeOwned>(
    name: &str,
    text: &str,
) -> Result<T, ConvertError> {
    serde_json::from_str(text).map_err(|error| ConvertError::new(name, error))
}

/// Parses a word of an enumeration by its JSON name; `None` for words of a newer version.
pub(crate) fn word<T: serde::de::DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).ok()
}

/// The JSON name of an enumeration's value.
pub(crate) fn word_of<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        _ => String::new(),
    }
}
