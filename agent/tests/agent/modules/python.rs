//! Virtual environments.
