//! Measurements: each is a program or script of its own, run on optimised builds.

use anyhow::{Result, bail};

use crate::{build, run};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Which measurement; without one, they are listed
    name: Option<String>,
    /// Passed on to it
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

const BENCHES: &[(&str, &str)] = &[
    (
        "deploy",
        "from a deploy accepted to the first 200; idle memory and CPU of agent and shim",
    ),
    (
        "job",
        "on Kubernetes: berth job run beside kubectl create, log latency, API requests with many jobs",
    ),
    (
        "plan",
        "the planner alone: placing a whole fleet, one node lost, one status, at 1k, 10k and 100k nodes",
    ),
    (
        "control",
        "the control actor alone: a heartbeat, a status, an agent that comes back, at 1k and 10k nodes",
    ),
    (
        "fleet",
        "thousands of agents' sessions against one coordinator: quiet, and back after it was killed",
    ),
    (
        "unpack",
        "unpacking 600 MB beside tar --zstd -x and sync -f",
    ),
    (
        "gateway",
        "CPU per request beside nginx and haproxy, 1 KB and 100 KB bodies",
    ),
    (
        "relay",
        "CPU per request, per new connection and per GB through a relay beside plain TCP, p99",
    ),
];

pub(crate) fn run(options: &Options) -> Result<()> {
    match options.name.as_deref() {
        Some("deploy") => {
            let bin = build::run(&build::Options {
                release: true,
                full: true,
            })?;
            example("berth-tests", "bench_deploy", &options.args, Some(&bin))
        }
        Some("job") => {
            let bin = build::run(&build::Options {
                release: true,
                full: true,
            })?;
            example("berth-tests", "bench_job", &options.args, Some(&bin))
        }
        Some("plan") => example("berth-plan", "plan_bench", &options.args, None),
        Some("control") => example("berth-coordinator", "bench_control", &options.args, None),
        Some("fleet") => fleet(&options.args),
        Some("relay") => example("berth-gateway", "bench_relay", &options.args, None),
        Some("unpack") => example("berth-package", "unpack_bench", &options.args, None),
        Some("gateway") => {
            run::check(run::cargo().args([
                "build",
                "--locked",
                "--release",
                "-p",
                "berth-gateway",
                "--examples",
            ]))?;
            let script = run::root().join("tests/benches/gateway.sh");
            run::check(std::process::Command::new(script).args(&options.args).env(
                "BERTH_GATEWAY_BIN",
                run::target().join("release/examples/bare_gateway"),
            ))
        }
        Some(other) => bail!("there is no bench {other:?}; `cargo xtask bench` lists them"),
        None => {
            for (name, what) in BENCHES {
                println!("{name:<8}  {what}");
            }
            Ok(())
        }
    }
}

/// Only the coordinator is needed, without its clusters.
fn fleet(args: &[String]) -> Result<()> {
    run::check(run::cargo().args([
        "build",
        "--locked",
        "--release",
        "-p",
        "berth-coordinator",
        "--bin",
        "berth-coordinator",
        "--example",
        "bench_fleet",
    ]))?;
    let release = run::target().join("release");
    run::check(
        std::process::Command::new(release.join("examples/bench_fleet"))
            .args(args)
            .env("BERTH_COORDINATOR", release.join("berth-coordinator")),
    )
}

fn example(
    package: &str,
    name: &str,
    args: &[String],
    bin: Option<&std::path::Path>,
) -> Result<()> {
    let mut cargo = run::cargo();
    cargo
        .args([
            "run",
            "--locked",
            "--release",
            "-p",
            package,
            "--example",
            name,
            "--",
        ])
        .args(args);
    if let Some(bin) = bin {
        cargo.env("BERTH_BIN_DIR", bin);
    }
    run::check(&mut cargo)
}
