//! The manifest `berth.toml` of a service package.
//!
//! [`parse`] reads it and reports every error at once, each with its line and column. Unknown keys
//! are errors: a misspelt `stop_grace` must not silently mean "the default".

mod convert;
mod error;
mod parse;
mod rules;
mod section;
mod sections;
mod serving;
pub mod suggest;
mod tfserving;
mod types;

#[cfg(test)]
mod tests;

pub use error::{ManifestError, ManifestErrors};
pub use parse::{FILE_NAME, MAX_BYTES, parse};
pub use rules::{JOB_VARIABLES, MODULE_VARIABLES, TRANSFORM_VARIABLES};
pub use types::*;
