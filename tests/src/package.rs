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
    /// Tries to break out and says what it could do; the victim whose files it looks for is `victim.1.0.1`.
    Probe,
    /// Keeps a file that others would like to read.
    Secret,
    /// Uses memory until its 64 MiB are over.
    Hog,
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
            Self::Probe => "probe",
            Self::Secret => "secret",
            Self::Hog => "hog",
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
    let limits = match mode {
        Mode::Hog => "\n[resources]\nmemory = \"64MiB\"\ncpu = 0.5\n",
        _ => "",
    };
    std::fs::write(dir.join("berth.toml"), manifest + limits)?;
    Ok(())
}
