//! Every test, with what they need installed first and what was skipped said last.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::platforms::{Cached, Platforms};
use crate::{build, run, tools};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only tests whose name contains this
    filter: Option<String>,
}

/// Programs that tests use: name, Debian package, what for.
const PROGRAMS: [(&str, &str, &str); 5] = [
    (
        "python3",
        "python3",
        "the package that `berth package init` writes",
    ),
    ("setsid", "util-linux", "`berth up`"),
    ("strip", "binutils", "`cargo xtask deb`"),
    ("dpkg-shlibdeps", "dpkg-dev", "`cargo xtask deb`"),
    (
        "docker-registry",
        "docker-registry",
        "the registry that a node with Docker pushes to",
    ),
];

/// What may be skipped in CI, by name.
const MAY_SKIP: [&str; 2] = ["gpu", "real-tfserving"];

pub(crate) fn run(options: &Options) -> Result<()> {
    install_programs()?;
    let dependencies = match options.filter {
        None => check_dependencies(),
        Some(_) => Ok(()),
    };
    // A filtered run is for the inner loop: it uses what runs already.
    let cached = options.filter.is_none().then(Cached::start);
    let bin = build::run(&build::Options {
        release: false,
        full: true,
    })?;
    let platforms = cached.map(Platforms::start);
    let skipped = run::target().join("berth/skipped");
    // A list of an earlier run must not be taken for this one's.
    if skipped.exists() {
        std::fs::remove_file(&skipped)
            .with_context(|| format!("cannot remove {}", skipped.display()))?;
    }
    let mut tests = if run::on_path("cargo-nextest") {
        let mut cargo = run::cargo();
        cargo.args([
            "nextest",
            "run",
            "--workspace",
            "--locked",
            "--no-fail-fast",
            "--features",
            build::FEATURES,
        ]);
        cargo
    } else {
        println!("cargo-nextest is not installed, so cargo test runs the tests, more slowly");
        let mut cargo = run::cargo();
        cargo.args([
            "test",
            "--workspace",
            "--locked",
            "--no-fail-fast",
            "--lib",
            "--bins",
            "--tests",
            "--features",
            build::FEATURES,
        ]);
        cargo
    };
    tests.args(options.filter.as_deref());
    tests.envs(platforms.iter().flat_map(|p| p.env.clone()));
    let ran = run::check(
        tests
            .env("BERTH_BIN_DIR", &bin)
            .env("BERTH_SKIPPED", &skipped),
    );
    drop(platforms);
    let documented = match options.filter {
        None => run::check(run::cargo().args([
            "test",
            "--workspace",
            "--locked",
            "--doc",
            "--quiet",
            "--features",
            build::FEATURES,
        ])),
        Some(_) => Ok(()),
    };
    let named = report_skipped(&skipped)?;
    ran.and(documented).and(dependencies)?;
    let in_ci = std::env::var_os("CI").is_some();
    if let Some(name) = named
        .iter()
        .find(|name| in_ci && !MAY_SKIP.contains(&name.as_str()))
    {
        bail!(
            "{name} was skipped; in CI only {} may be",
            MAY_SKIP.join(" and ")
        );
    }
    Ok(())
}

fn install_programs() -> Result<()> {
    let missing: Vec<_> = PROGRAMS
        .iter()
        .filter(|(program, ..)| !run::on_path(program))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !run::on_path("apt-get") || !is_root() {
        for (program, _, purpose) in missing {
            println!("not installed (needs root on Debian): {program}, for {purpose}");
        }
        return Ok(());
    }
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq");
        command
    };
    run::output(apt().arg("update"))?;
    let packages = missing.iter().map(|(_, package, _)| package);
    run::output(
        apt()
            .args(["install", "-y", "--no-install-recommends"])
            .args(packages),
    )?;
    Ok(())
}

fn check_dependencies() -> Result<()> {
    let path = tools::with(&[tools::CARGO_DENY])?;
    // Advisories need a database from the network; they are looked at when a release is made.
    let checks = ["deny", "--locked", "check", "bans", "licenses", "sources"];
    run::check(run::cargo().env("PATH", path).args(checks))
}

fn is_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// Tests that cannot run here write `NAME: why` to the file that BERTH_SKIPPED names.
fn report_skipped(file: &Path) -> Result<BTreeSet<String>> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    let lines: BTreeSet<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        println!("\nSkipped: nothing");
    } else {
        println!("\nSkipped:");
    }
    for line in &lines {
        println!("  {line}");
    }
    Ok(lines
        .iter()
        .filter_map(|l| l.split_once(':'))
        .map(|(name, _)| name.to_owned())
        .collect())
}
