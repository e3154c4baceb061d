//! Building every program into one folder, as an installation would have them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::run;

#[derive(clap::Args, Clone, Copy)]
pub(crate) struct Options {
    /// Optimised, as users run it
    #[arg(long)]
    pub(crate) release: bool,
    /// With Docker and Kubernetes, which are heavy to build; `--release` has them anyway
    #[arg(long)]
    pub(crate) full: bool,
}

/// What only users' and tests' builds have, so that development and the demo do without its dependencies.
pub(crate) const FEATURES: &str = "berth-coordinator/kubernetes,berth-agent/docker";

const PROGRAMS: [&str; 5] = [
    "berth",
    "berth-coordinator",
    "berth-agent",
    "dga-detector",
    "berth-relay",
];

/// Builds and returns the folder with the programs.
pub(crate) fn run(options: &Options) -> Result<PathBuf> {
    let profile = if options.release { "release" } else { "debug" };
    let mut cargo = run::cargo();
    cargo.args(["build", "--locked"]);
    for program in PROGRAMS {
        cargo.args(["-p", program, "--bin", program]);
    }
    if options.release {
        cargo.arg("--release");
    }
    if options.release || options.full {
        cargo.args(["--features", FEATURES]);
    }
    run::check(&mut cargo)?;

    let bin = run::target()
        .join("berth")
        .join(if options.release { "release" } else { "bin" });
    std::fs::create_dir_all(&bin).with_context(|| format!("cannot make {}", bin.display()))?;
    for program in PROGRAMS {
        install(
            &run::target().join(profile).join(program),
            &bin.join(program),
        )?;
    }
    for (program, path) in beside()? {
        install(&path, &bin.join(program))?;
    }
    Ok(bin)
}

/// What runs beside modules is static, small and optimised whatever the profile of the rest: it is in
/// containers too, and one shim runs beside every instance, one driver beside a job's module.
pub(crate) fn beside() -> Result<[(&'static str, PathBuf); 2]> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let target = run::target().join("shim");
    run::check(
        run::cargo()
            .args([
                "build",
                "--locked",
                "--release",
                "-p",
                "berth-shim",
                "-p",
                "berth-driver",
                "--target",
                &triple,
            ])
            .arg("--target-dir")
            .arg(&target)
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            // Memory counts here, speed hardly: 1.4 instead of 1.5 MB resident.
            .envs([
                ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
                ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s"),
                ("CARGO_PROFILE_RELEASE_LTO", "fat"),
                ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
                ("CARGO_PROFILE_RELEASE_STRIP", "symbols"),
            ]),
    )?;
    let built = target.join(triple).join("release");
    Ok(["berth-shim", "berth-driver"].map(|program| (program, built.join(program))))
}

/// Copies under another name and renames, so that a program that runs is not "text file busy".
fn install(from: &Path, to: &Path) -> Result<()> {
    let same = |a: &Path, b: &Path| -> Option<bool> {
        let (a, b) = (a.metadata().ok()?, b.metadata().ok()?);
        Some(a.len() == b.len() && a.modified().ok()? <= b.modified().ok()?)
    };
    if same(from, to) == Some(true) {
        return Ok(());
    }
    let fresh = to.with_extension(format!("new{}", std::process::id()));
    std::fs::copy(from, &fresh)
        .with_context(|| format!("cannot copy {} to {}", from.display(), fresh.display()))?;
    std::fs::rename(&fresh, to).with_context(|| format!("cannot replace {}", to.display()))
}
