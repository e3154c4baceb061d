//! Service packages for tests, around `test-module`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

/// How the module behaves; the text is its `TEST_MODE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As it should.
    Good,
    /// Runs, never listens.
    NeverHealthy,
    /// Exits with code 3 at once.
    Exit,
    /// Ignores SIGTERM.
    IgnoreTerm,
    /// Writes to its log as fast as it can.
    Flood,
    /// Leaves a daemon of another session behind.
    DoubleFork,
    /// Listens on `$PORT` + 1.
    WrongPort,
}

impl Mode {
    fn text(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::NeverHealthy => "never-healthy",
            Self::Exit => "exit",
            Self::IgnoreTerm => "ignore-term",
            Self::Flood => "flood",
            Self::DoubleFork => "double-fork",
            Self::WrongPort => "wrong-port",
        }
    }
}

/// Writes a package folder `NAME@VERSION` around the module program.
pub fn stage(dir: &Path, module: &Path, name: &str, version: &str, mode: Mode) -> Result<()> {
    std::fs::create_dir_all(dir.join("bin"))?;
    std::fs::create_dir_all(dir.join("model"))?;
    let program = dir.join("bin/test-module");
    std::fs::copy(module, &program).with_context(|| format!("cannot copy {}", module.display()))?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    std::fs::write(dir.join("model/weights"), format!("{name} {version}\n"))?;
    let manifest = format!(
        r#"[package]
name = "{name}"
version = "{version}"

[model]
path = "model"
format = "custom"

[module]
kind = "custom"
command = ["bin/test-module"]
env = {{ TEST_MODE = "{mode}" }}
stop_grace = "2s"

[health]
http = "/healthz"
start_timeout = "{start_timeout}"
interval = "500ms"
"#,
        mode = mode.text(),
        start_timeout = if matches!(mode, Mode::NeverHealthy | Mode::WrongPort) {
            "2s"
        } else {
            "60s"
        },
    );
    std::fs::write(dir.join("berth.toml"), manifest)?;
    Ok(())
}
