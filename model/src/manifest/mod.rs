//! The manifest `berth.toml` of a service package.
//!
//! [`parse`] reads it and reports every error at once, each with its line and column. Unknown keys
//! are errors: a misspelt `stop_grace` must not silently mean "the default".

mod parse;
pub(crate) mod rules;
mod sections;
mod serving;
mod tfserving;
mod types;

#[cfg(test)]
mod tests;

pub use crate::read::suggest;
pub use crate::read::{FileError as ManifestError, FileErrors as ManifestErrors};
pub use parse::{FILE_NAME, MAX_BYTES, parse};
pub use rules::{JOB_VARIABLES, MODULE_VARIABLES, TRANSFORM_VARIABLES};
pub use types::*;
