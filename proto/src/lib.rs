//! The wire protocol: generated messages and services, and the only conversions between them and
//! [`berth_model`]. Generated types stay in this crate and at the edges that speak gRPC.
#![forbid(unsafe_code)]

mod convert;

pub use convert::ConvertError;

/// Generated code of package `berth.v1`.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    unreachable_pub,
    reason = "generated"
)]
pub mod v1 {
    tonic::include_proto!("berth.v1");
}

/// DNS name that every coordinator certificate carries and every client checks, whatever the
/// address it dials.
pub const COORDINATOR_NAME: &str = "coordinator.berth.internal";
