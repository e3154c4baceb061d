//! Reading TOML that people write: key by key, every mistake at once, each with its line and column.
//! Manifests and fleet files are read with it.

pub(crate) mod convert;
mod error;
mod section;
pub mod suggest;

pub use error::{FileError, FileErrors};
pub(crate) use error::{Lines, Sink};
pub(crate) use section::{Entry, Field, Section};
