//! Berth's own image, in which a Pod is prepared: the static programs, as an archive that
//! `docker load` and `ctr images import` take.

mod archive;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{build, run};
use archive::{Content, Image};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where to write the archive [default: target/berth/berth-pod.tar]
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Optimised, as users run it
    #[arg(long)]
    release: bool,
    /// The image's name and tag
    #[arg(long, default_value = concat!("berth-pod:", env!("CARGO_PKG_VERSION")))]
    tag: String,
}

impl Options {
    /// As the tests' cluster is given it.
    pub(crate) fn for_tests() -> Self {
        Self {
            output: None,
            release: false,
            tag: concat!("berth-pod:", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Builds the programs and writes the archive; tells where it is.
pub(crate) fn run(options: &Options) -> Result<PathBuf> {
    let mut programs = vec![("berth-agent", agent(options.release)?)];
    programs.extend(build::beside()?);
    let read = |(name, path): &(&'static str, PathBuf)| {
        let bytes =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Content { name, bytes })
    };
    let image = Image {
        tag: options.tag.clone(),
        architecture: architecture(std::env::consts::ARCH),
        programs: programs.iter().map(read).collect::<Result<Vec<_>>>()?,
    };
    let output = match &options.output {
        Some(output) => output.clone(),
        None => run::target().join("berth/berth-pod.tar"),
    };
    write(&output, &image.archive()?)?;
    println!("{} is {}", output.display(), image.tag);
    Ok(output)
}

/// What images call a processor architecture that Rust names otherwise.
fn architecture(rust: &'static str) -> &'static str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The agent without Docker, static: it runs in whatever image a module has.
fn agent(release: bool) -> Result<PathBuf> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    // A folder of its own: other flags would have everything else built anew each time.
    let target = run::target().join("pod");
    let mut cargo = run::cargo();
    cargo
        .args(["build", "--locked", "-p", "berth-agent"])
        .args(["--bin", "berth-agent", "--target", &triple])
        .arg("--target-dir")
        .arg(&target)
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    let profile = if release {
        cargo.arg("--release").envs([
            ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s"),
            ("CARGO_PROFILE_RELEASE_STRIP", "symbols"),
        ]);
        "release"
    } else {
        // Not optimised: quick to build counts for more than the size, which is that of stripped programs.
        cargo.envs([
            ("CARGO_INCREMENTAL", "0"),
            ("CARGO_PROFILE_DEV_DEBUG", "false"),
            ("CARGO_PROFILE_DEV_STRIP", "symbols"),
        ]);
        "debug"
    };
    run::check(&mut cargo)?;
    Ok(target.join(triple).join(profile).join("berth-agent"))
}

/// Whole or not at all: somebody may be loading the last one.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(failed)?;
    }
    let fresh = path.with_extension(format!("new{}", std::process::id()));
    std::fs::write(&fresh, bytes).with_context(failed)?;
    std::fs::rename(&fresh, path).with_context(failed)
}
