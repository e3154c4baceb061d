//! Nodes' relays.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{Daemon, bin};

/// The folders of one node's relay, and where it listens.
#[derive(Debug, Clone)]
pub struct RelayPlace {
    /// What the agent writes.
    pub folder: PathBuf,
    /// Its own.
    pub runtime: PathBuf,
    /// Its port, on every address of this machine.
    pub port: u16,
}

impl RelayPlace {
    /// Of a node.
    pub fn of(node: &Path, port: u16) -> Self {
        Self {
            folder: node.join("relay"),
            runtime: node.join("relay-run"),
            port,
        }
    }

    /// Lines of the node's agent.toml; to stand before its tables.
    pub fn agent_toml(&self) -> String {
        format!(
            "relay_listen = \"0.0.0.0:{}\"\nrelay_dir = \"{}\"\nrelay_metrics = \"{}\"\n",
            self.port,
            self.folder.display(),
            self.runtime.join("metrics.prom").display()
        )
    }

    /// Starts the relay of a node; its log is in `home`.
    pub fn start(&self, node: &str, home: &Path) -> Result<Daemon> {
        let name = format!("{node}-relay");
        let log = home.join(format!("{name}.log"));
        for folder in [&self.folder, &self.runtime] {
            std::fs::create_dir_all(folder)?;
        }
        let text = |path: &Path| path.to_str().map(str::to_owned);
        let folder = text(&self.folder).context("a path")?;
        let runtime = text(&self.runtime).context("a path")?;
        let arguments = ["--folder", &folder, "--runtime", &runtime];
        Daemon::start(&name, &bin("berth-relay")?, &arguments, log)
    }

    /// One of its figures; 0 if there are none yet.
    pub fn figure(&self, name: &str) -> u64 {
        let text = std::fs::read_to_string(self.runtime.join("metrics.prom")).unwrap_or_default();
        let line = |line: &str| {
            let rest = line.strip_prefix("berth_relay_")?.strip_prefix(name)?;
            rest.trim().parse().ok()
        };
        text.lines().find_map(line).unwrap_or(0)
    }
}
