//! `berth`: the admin CLI. A client of the admin API and nothing more, besides `up` and `down`, which
//! run a whole Berth on this machine.
#![forbid(unsafe_code)]

mod args;
mod client;
mod commands;
mod context;
mod failure;
mod output;
mod progress;
mod sse;
mod table;
mod upload;
mod words;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args = args::Args::parse();
    // Refused only if there is a provider already, which then serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return failure::report(&anyhow::Error::new(error)),
    };
    match runtime.block_on(commands::run(args)) {
        Ok(code) => code,
        Err(error) => failure::report(&error),
    }
}
