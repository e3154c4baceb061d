//! Configuration files: TOML, unknown keys refused, every error at once.

mod cluster;
mod control;
mod file;

pub use cluster::ClusterSettings;
pub use control::ControlConfig;
pub use file::{ConfigError, Keys};
