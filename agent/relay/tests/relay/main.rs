//! The real program between real TLS clients and instances.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod attacks;
mod bytes;
mod callers;
mod common;
mod takeover;
