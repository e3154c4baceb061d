//! `cargo xtask …`: Berth's own tasks, the same for newcomers, developers and CI.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a task runner talks to the terminal")]

mod bench;
mod build;
mod deb;
mod demo;
mod http;
mod image;
mod platforms;
mod run;
mod stage;
mod table;
mod test;
mod tools;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Berth's own tasks")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build every program into target/berth/bin
    Build(build::Options),
    /// Build the static programs of Pods and write them as an image that `docker load` takes
    Image(image::Options),
    /// Make Debian packages: berth, berth-coordinator, berth-agent
    Deb(deb::Options),
    /// Start a whole Berth, deploy the example, send it domain names, keep serving until Ctrl-C
    Demo(demo::Options),
    /// Install what the tests need, run every test, list what was skipped and why
    Test(test::Options),
    /// Measure: `cargo xtask bench NAME`; without a name, list them
    Bench(bench::Options),
}

fn main() -> std::process::ExitCode {
    let result = match Args::parse().task {
        Task::Build(options) => build::run(&options).map(|_| ()),
        Task::Image(options) => image::run(&options).map(|_| ()),
        Task::Deb(options) => deb::run(&options).map(|_| ()),
        Task::Demo(options) => demo::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Bench(options) => bench::run(&options),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
