//! The gateway from the outside: real sockets on loopback, instances that the tests steer.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod basics;
mod common;
mod limits;
mod protocol;
mod relay;
mod replay;
mod streaming;
mod tables;
mod tls;
