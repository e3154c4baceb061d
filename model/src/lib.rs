//! The words of Berth and their validation, shared by every process.
//!
//! Plain data only: nothing here does I/O, reads a clock or knows a wire format other than the JSON
//! that `serde` derives (which is what the store and the admin API carry).
#![forbid(unsafe_code)]

pub mod api;
pub mod digest;
pub mod event;
pub mod fleetfile;
pub mod gateway;
pub mod id;
pub mod instance;
pub mod job;
pub mod manifest;
pub mod node;
pub mod place;
pub mod pool;
pub mod problem;
mod read;
pub mod record;
pub mod relay;
pub mod resources;
pub mod route;
pub mod service;
pub mod time;
pub mod token;
