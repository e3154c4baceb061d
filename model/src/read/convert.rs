//! TOML values to typed ones. Each function reports what is wrong and then returns nothing.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use serde_json::{Map, Number, Value as Json};
use toml::de::{DeInteger, DeValue};

use super::Field;
use super::suggest::did_you_mean;

/// A string without NUL, which neither a process's arguments nor its environment can hold.
pub(crate) fn string(field: Field<'_, '_>) -> Option<String> {
    match field.value.get_ref() {
        DeValue::String(text) if text.contains('\0') => {
            field.fail("a NUL character is not allowed")
        }
        DeValue::String(text) => Some(text.clone().into_owned()),
        _ => field.expected("a string (in quotes)"),
    }
}

/// A string that `parse` accepts; its error is what the user reads.
pub(crate) fn checked<T>(
    field: Field<'_, '_>,
    parse: impl FnOnce(String) -> Result<T, String>,
) -> Option<T> {
    let text = string(field.inner(field.value))?;
    match parse(text) {
        Ok(value) => Some(value),
        Err(message) => field.fail(&message),
    }
}

/// A string read by its type's own rules, such as a duration or a size.
pub(crate) fn parsed<T: FromStr<Err: Display>>(field: Field<'_, '_>) -> Option<T> {
    checked(field, |text| {
        text.parse().map_err(|error: T::Err| error.to_string())
    })
}

/// One of a few words.
pub(crate) fn word<T: Copy>(field: Field<'_, '_>, words: &[(&str, T)]) -> Option<T> {
    checked(field, |text| {
        words
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, value)| *value)
            .ok_or_else(|| {
                let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                let quoted: Vec<String> = known.iter().map(|word| format!("{word:?}")).collect();
                let hint = did_you_mean(&text, &known);
                format!("expected {}, found {text:?}{hint}", quoted.join(" or "))
            })
    })
}

/// `true` or `false`.
pub(crate) fn boolean(field: Field<'_, '_>) -> Option<bool> {
    match field.value.get_ref() {
        DeValue::Boolean(value) => Some(*value),
        _ => field.expected("true or false"),
    }
}

/// `true`, for a key that chooses by being there.
pub(crate) fn just_true(field: Field<'_, '_>) -> Option<()> {
    if boolean(field.inner(field.value))? {
        Some(())
    } else {
        field.fail("write true, or leave the key out")
    }
}

/// A whole number from `least` up.
pub(crate) fn whole(field: Field<'_, '_>, least: u32) -> Option<u32> {
    let DeValue::Integer(number) = field.value.get_ref() else {
        return field.expected("a whole number");
    };
    match u32::from_str_radix(number.as_str(), number.radix()) {
        Ok(value) if value >= least => Some(value),
        _ => field.fail(&format!(
            "expected a whole number from {least} to {}",
            u32::MAX
        )),
    }
}

/// A whole number of any size, such as a count of bytes.
pub(crate) fn long(field: Field<'_, '_>) -> Option<u64> {
    let DeValue::Integer(number) = field.value.get_ref() else {
        return field.expected("a whole number");
    };
    match u64::from_str_radix(number.as_str(), number.radix()) {
        Ok(value) => Some(value),
        Err(_) => field.fail(&format!("expected a whole number from 0 to {}", u64::MAX)),
    }
}

/// A finite number, whole or not.
pub(crate) fn number(field: Field<'_, '_>) -> Option<f64> {
    let value = match field.value.get_ref() {
        DeValue::Integer(number) => {
            // Beyond 2^53 a measured figure loses digits that never meant anything.
            #[allow(clippy::cast_precision_loss)]
            i64::from_str_radix(number.as_str(), number.radix())
                .ok()
                .map(|n| n as f64)
        }
        DeValue::Float(number) => number.as_str().parse().ok(),
        _ => return field.expected("a number"),
    };
    match value {
        Some(value) if value.is_finite() => Some(value),
        _ => field.fail("expected a finite number"),
    }
}

/// An array of strings.
pub(crate) fn strings(field: Field<'_, '_>) -> Option<Vec<String>> {
    list(field, "an array of strings", string)
}

/// An array, each of whose items `convert` accepts. Mistakes in all items are reported.
pub(crate) fn list<'i, T>(
    field: Field<'_, 'i>,
    wanted: &str,
    convert: impl Fn(Field<'_, 'i>) -> Option<T>,
) -> Option<Vec<T>> {
    let DeValue::Array(items) = field.value.get_ref() else {
        return field.expected(wanted);
    };
    let found: Vec<T> = items
        .iter()
        .filter_map(|item| convert(field.inner(item)))
        .collect();
    (found.len() == items.len()).then_some(found)
}

/// A table of free keys, each accepted by `check`, with values accepted by `convert`.
pub(crate) fn map<'i, T>(
    field: Field<'_, 'i>,
    check: impl Fn(&str) -> Result<(), String>,
    convert: impl Fn(Field<'_, 'i>) -> Option<T>,
) -> Option<BTreeMap<String, T>> {
    let DeValue::Table(table) = field.value.get_ref() else {
        return field.expected("a table");
    };
    let mut found = BTreeMap::new();
    for (key, value) in table {
        let checked = match check(key.get_ref()) {
            Ok(()) => convert(field.inner(value)),
            Err(message) => field.fail_at(key.span().start, &message),
        };
        if let Some(value) = checked {
            found.insert(key.get_ref().clone().into_owned(), value);
        }
    }
    (found.len() == table.len()).then_some(found)
}

/// A body: a string holds JSON text, anything else is TOML that becomes JSON.
pub(crate) fn body(field: Field<'_, '_>) -> Option<Json> {
    match field.value.get_ref() {
        DeValue::String(text) => match serde_json::from_str(text) {
            Ok(value) => Some(value),
            Err(error) => field.fail(&format!("this string is not JSON: {error}")),
        },
        _ => json(field),
    }
}

/// Any TOML as JSON; dates become strings.
pub(crate) fn json(field: Field<'_, '_>) -> Option<Json> {
    match field.value.get_ref() {
        DeValue::String(text) => Some(Json::String(text.clone().into_owned())),
        DeValue::Boolean(value) => Some(Json::Bool(*value)),
        DeValue::Datetime(value) => Some(Json::String(value.to_string())),
        DeValue::Integer(number) => match json_integer(number) {
            Some(number) => Some(Json::Number(number)),
            None => field.fail("this number is too large"),
        },
        DeValue::Float(_) => Number::from_f64(number(field)?).map(Json::Number),
        DeValue::Array(items) => {
            let found: Vec<Json> = items
                .iter()
                .filter_map(|item| json(field.inner(item)))
                .collect();
            (found.len() == items.len()).then_some(Json::Array(found))
        }
        DeValue::Table(table) => {
            let found: Map<String, Json> = table
                .iter()
                .filter_map(|(key, value)| {
                    Some((
                        key.get_ref().clone().into_owned(),
                        json(field.inner(value))?,
                    ))
                })
                .collect();
            (found.len() == table.len()).then_some(Json::Object(found))
        }
    }
}

fn json_integer(number: &DeInteger<'_>) -> Option<Number> {
    let (text, radix) = (number.as_str(), number.radix());
    i64::from_str_radix(text, radix)
        .map(Number::from)
        .or_else(|_| u64::from_str_radix(text, radix).map(Number::from))
        .ok()
}
