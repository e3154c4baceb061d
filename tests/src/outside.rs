//! What tests need from outside the workspace: model servers, interpreters, models.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// An address of this machine that is not loopback: the one from which others are reached. Nothing is sent.
pub fn own_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    // For documentation: the route to it is that to anywhere.
    socket.connect("203.0.113.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

/// The folder of the tests in the checkout.
pub fn tests_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Notes that a test (or the real part of one) did not run: `cargo xtask test` lists these last.
pub fn skip(name: &str, why: &str) -> Result<()> {
    berth_skipped::skip(name, why);
    Ok(())
}

/// Where `name` is on PATH.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// Runs a program to its end and returns its output; a failure has what it wrote to both streams.
pub fn output_of(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {:?}", command.get_program()))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?}: {}\n{error}{text}", output.status);
    }
    Ok(text)
}

/// A model server of TensorFlow Serving, and Python with its official client.
#[derive(Debug, Clone)]
pub struct TfServing {
    /// `tensorflow_model_server`.
    pub server: PathBuf,
    /// An interpreter with tensorflow-serving-api, grpcio, requests and TensorFlow.
    pub python: PathBuf,
}

impl TfServing {
    /// The real one from `BERTH_TEST_TFSERVING` or PATH, else the test server over TensorFlow.
    pub fn find() -> Result<Self> {
        let setup = tests_folder().join("tfserving/setup.sh");
        let python = output_of(Command::new(&setup).arg("--python"))?;
        let real = std::env::var_os("BERTH_TEST_TFSERVING")
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
            .or_else(|| on_path("tensorflow_model_server"));
        let server = match real {
            Some(real) => real,
            None => {
                skip(
                    "real-tfserving",
                    "no tensorflow_model_server on PATH or in BERTH_TEST_TFSERVING, so the test server over TensorFlow stood in",
                )?;
                PathBuf::from(output_of(&mut Command::new(&setup))?)
            }
        };
        Ok(Self {
            server,
            python: PathBuf::from(python),
        })
    }

    /// What an agent is told of it. The test server's program is only the smallest part of it: the rest, and its Python,
    /// may lie where instances see nothing.
    pub fn agent_toml(&self) -> Result<String> {
        let interpreter = self.python.canonicalize();
        let interpreter = interpreter.with_context(|| self.python.display().to_string())?;
        let homes = [&self.server, &self.python, &interpreter];
        let homes = homes.map(|program| program.parent().and_then(Path::parent));
        let homes: Vec<String> = homes
            .iter()
            .flatten()
            .map(|home| format!("{:?}", home.display().to_string()))
            .collect();
        Ok(format!(
            "tensorflow_model_server = {:?}\n[isolation]\nreadable = [{}]\n",
            self.server.display().to_string(),
            homes.join(", ")
        ))
    }

    /// The folder of a SavedModel that `tests/tfserving/models.py` makes, from the cache where it can.
    pub fn model(&self, name: &str) -> Result<PathBuf> {
        let script = tests_folder().join("tfserving/models.py");
        let made = output_of(
            Command::new(&self.python)
                .arg(script)
                .args(["--cached", name]),
        )?;
        Ok(PathBuf::from(made))
    }
}

/// Copies a folder with all that is in it; links are followed.
pub fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from).with_context(|| from.display().to_string())? {
        let path = entry?.path();
        let target = to.join(path.file_name().context("a name")?);
        if path.is_dir() {
            copy_folder(&path, &target)?;
        } else {
            std::fs::copy(&path, &target)?;
        }
    }
    Ok(())
}
