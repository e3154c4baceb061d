//! Fleet files: TOML that declares labels, pools, models, services and jobs.
//!
//! [`parse`] reads any number of them as one fleet and reports every mistake in all of them at once, each
//! with its file, line and column. Entries become the API's own requests, checked by the API's own rules
//! ([`crate::api::rules`]); what only the coordinator can know, it says of an entry by its path, and
//! [`Places`] turns that into a place in a file. [`write()`] is the way back.

mod entries;
mod keys;
mod parse;
mod places;
mod write;

#[cfg(test)]
mod tests;

pub use keys::{KINDS, Key, Kind, reference};
pub use parse::{Declared, Local, MAX_BYTES, Package, Parsed, Source, parse};
pub use places::Places;
pub use write::write;
