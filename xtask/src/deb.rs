//! Debian packages: `berth`, `berth-coordinator` and `berth-agent`, by cargo-deb from the `[package.metadata.deb]` of
//! their crates.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{build, run, tools};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// What the programs are built as
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    profile: Profile,
    /// The packages' version, where it shall be another than the programs'
    #[arg(long, value_name = "VERSION")]
    deb_version: Option<String>,
    /// Folder to write them to [default: target/berth/deb/PROFILE]
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Profile {
    /// Quick to build, for trying packages out
    Dev,
    /// Optimised, as users run it
    Release,
}

impl Options {
    /// As the tests' hosts install them.
    pub(crate) fn for_tests() -> Self {
        Self {
            profile: Profile::Dev,
            deb_version: None,
            output: None,
        }
    }
}

/// Crate, and the programs in its package.
const PACKAGES: [(&str, &[&str]); 3] = [
    ("berth", &["berth"]),
    ("berth-coordinator", &["berth-coordinator"]),
    (
        "berth-agent",
        &["berth-agent", "berth-relay", "berth-shim", "berth-driver"],
    ),
];

/// Builds the programs and packs them; tells the folder.
pub(crate) fn run(options: &Options) -> Result<PathBuf> {
    let dev = options.profile == Profile::Dev;
    let bin = build::run(&build::Options {
        release: !dev,
        full: true,
    })?;
    let name = if dev { "dev" } else { "release" };
    let work = run::target().join("berth/deb");
    // cargo-deb takes programs from `target/release`, whatever they were built as.
    let stage = work.join(format!("stage-{name}"));
    let output = match &options.output {
        Some(output) => std::path::absolute(output)?,
        None => work.join(name),
    };
    std::fs::create_dir_all(&output)
        .with_context(|| format!("cannot make {}", output.display()))?;
    let path = tools::with(&[tools::CARGO_DEB])?;
    for (package, programs) in PACKAGES {
        for program in programs {
            strip(&bin.join(program), &stage.join("release").join(program))?;
        }
        remove_older(&output, package)?;
        let mut deb = run::cargo();
        deb.args(["deb", "--quiet", "--no-build", "--no-strip", "--package"])
            .arg(package)
            .arg("--output")
            .arg(&output)
            .env("CARGO_TARGET_DIR", &stage)
            .env("PATH", &path);
        if dev {
            deb.arg("--fast");
        }
        if let Some(version) = &options.deb_version {
            deb.args(["--deb-version", version]);
        }
        run::check(&mut deb)?;
    }
    println!("the packages are in {}", output.display());
    Ok(output)
}

/// Copies a program without what only debuggers need.
fn strip(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    run::check(
        std::process::Command::new("strip")
            .args(["--strip-unneeded", "-o"])
            .arg(to)
            .arg(from),
    )
}

/// One version of each package, so that `*.deb` of the folder can be installed.
fn remove_older(folder: &Path, package: &str) -> Result<()> {
    let failed = || format!("cannot clear {}", folder.display());
    for entry in std::fs::read_dir(folder).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(&format!("{package}_")) && name.ends_with(".deb") {
            std::fs::remove_file(&path).with_context(failed)?;
        }
    }
    Ok(())
}
