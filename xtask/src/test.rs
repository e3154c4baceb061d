//! Every test, with what they need installed first and what was skipped said last.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{build, run};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only tests whose name contains this
    filter: Option<String>,
}

/// Debian packages that tests use and what for.
const PACKAGES: [(&str, &str); 1] = [(
    "wamerican",
    "the word list that examples/dga-detector is trained with",
)];

/// What may be skipped in CI, by name.
const MAY_SKIP: [&str; 2] = ["gpu", "real-tfserving"];

pub(crate) fn run(options: &Options) -> Result<()> {
    install_packages()?;
    let bin = build::run(&build::Options { release: false })?;
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
        ]);
        cargo
    };
    tests.args(options.filter.as_deref());
    let ran = run::check(
        tests
            .env("BERTH_BIN_DIR", &bin)
            .env("BERTH_SKIPPED", &skipped),
    );
    let documented = match options.filter {
        None => {
            run::check(run::cargo().args(["test", "--workspace", "--locked", "--doc", "--quiet"]))
        }
        Some(_) => Ok(()),
    };
    let named = report_skipped(&skipped)?;
    ran.and(documented)?;
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

fn install_packages() -> Result<()> {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| !is_installed(name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !run::on_path("apt-get") || !is_root() {
        for (name, purpose) in PACKAGES.iter().filter(|(name, _)| missing.contains(name)) {
            println!("not installed (needs root on Debian): {name}, {purpose}");
        }
        return Ok(());
    }
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq");
        command
    };
    run::output(apt().arg("update"))?;
    run::output(
        apt()
            .args(["install", "-y", "--no-install-recommends"])
            .args(&missing),
    )?;
    Ok(())
}

fn is_installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["-W", "-f=${db:Status-Status}", package])
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
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
