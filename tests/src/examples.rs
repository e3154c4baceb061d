//! The packages of `examples/`, staged as a user would push them, and the backends they run on.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::outside::{copy_folder, output_of, skip, tests_folder};

/// What starts instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// A process on a node.
    Process,
    /// A container on a node.
    Docker,
    /// A Kubernetes Job.
    Kubernetes,
}

impl Backend {
    /// Its name for `--runtime`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Docker => "docker",
            Self::Kubernetes => "kubernetes",
        }
    }

    /// Whether `BERTH_TEST_BACKENDS` (names between commas; none: only processes) has it; noted as
    /// skipped where it does not.
    pub fn wanted(self) -> Result<bool> {
        let listed = std::env::var("BERTH_TEST_BACKENDS").unwrap_or_else(|_| "process".to_owned());
        let wanted = listed.split(',').any(|name| name.trim() == self.name());
        if !wanted {
            skip(
                &format!("examples-on-{}", self.name()),
                "BERTH_TEST_BACKENDS does not name it; `cargo xtask test` sets it where the platform can be set up",
            )?;
        }
        Ok(wanted)
    }
}

/// A script of `tests/platform/`, run to its end; what it printed.
pub fn platform(script: &str, args: &[&str]) -> Result<String> {
    output_of(Command::new(tests_folder().join("platform").join(script)).args(args))
}

/// Lines of `agent.toml` for a node with the tests' Docker daemon and base images.
pub fn docker_node() -> Result<String> {
    let host = platform("docker.sh", &["up"])?;
    let images = platform("base-image.sh", &["docker", &host])?;
    let (python, tf_serving) = images.split_once('\n').context("two images")?;
    Ok(format!(
        "[docker]\nsocket = \"{host}\"\nbase_python = \"{python}\"\nbase_binary = \"{python}\"\nbase_tf_serving = \"{tf_serving}\"\n"
    ))
}

/// A copy of an example in `home`, with its wheels where it has requirements.
pub fn example(home: &Path, name: &str) -> Result<PathBuf> {
    let target = home.join(format!("example-{name}"));
    copy_folder(&tests_folder().join("../examples").join(name), &target)?;
    let script = target.join("fetch-wheels.sh");
    if script.exists() {
        let wheels = std::env::var_os("BERTH_CACHE")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/berth")))
            .context("neither BERTH_CACHE nor HOME is set")?
            .join("wheels");
        let cached = Command::new(&script)
            .args(["--no-index", "--find-links"])
            .arg(&wheels)
            .output()?;
        if !cached.status.success() {
            output_of(&mut Command::new(&script))?;
        }
    }
    Ok(target)
}
