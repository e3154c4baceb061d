//! Configuration files: TOML, unknown keys refused, every error at once.

mod control;
mod file;

pub use control::ControlConfig;
pub use file::{ConfigError, Keys};
