//! End-to-end tests of Berth: the real binaries as processes, on loopback, in parallel.
//!
//! [`Cluster`] starts a coordinator, a gateway and agents, each with a folder and ports of its own;
//! [`Client`] speaks the admin API and the gateway; [`Load`] sends steady traffic and counts what
//! failed. Everything is stopped and removed when a `Cluster` is dropped.
#![forbid(unsafe_code)]

mod client;
mod cluster;
mod disks;
mod examples;
pub mod hosts;
pub mod isolation;
mod kubernetes;
mod load;
mod outside;
mod package;
mod ports;
mod process;
mod relay;
mod wait;

pub use client::Client;
pub use cluster::{Cluster, Options};
pub use examples::{Backend, docker_node, example, platform};
pub use hosts::Hosts;
pub use kubernetes::kubeconfig;
pub use load::{Load, Outcome};
pub use outside::{TfServing, copy_folder, on_path, output_of, own_address, skip, tests_folder};
pub use package::{Mode, stage};
pub use ports::PortSlice;
pub use process::{Daemon, bin, pids_with};
pub use relay::RelayPlace;
pub use wait::{until, until_some};
