//! Berth on hosts: its packages, as `cargo xtask deb` makes them, installed and joined.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::{Hosts, SHARE};
use crate::{Cluster, until};

/// The folder of the packages under test: `BERTH_TEST_DEBS`, else where `cargo xtask deb --profile dev` puts them.
pub fn debs() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("BERTH_TEST_DEBS") {
        return Ok(PathBuf::from(folder));
    }
    let target = std::env::current_exe()?;
    // …/target/debug/deps/THIS
    let target = target.ancestors().nth(3).context("no target folder")?;
    let folder = target.join("berth/deb/dev");
    if !folder.is_dir() {
        bail!(
            "{} is not there: run `cargo xtask deb --profile dev` first",
            folder.display()
        );
    }
    Ok(folder)
}

/// The file of a package.
pub fn deb(package: &str) -> Result<PathBuf> {
    let folder = debs()?;
    let mut found = std::fs::read_dir(&folder)
        .with_context(|| folder.display().to_string())?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&format!("{package}_")) && name.ends_with(".deb")
        });
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => bail!("no package {package} in {}", folder.display()),
        (Some(_), Some(_)) => bail!("more than one package {package} in {}", folder.display()),
    }
}

impl Hosts {
    /// Where hosts see a package: it is copied to the shared folder the first time.
    pub fn shared_deb(&self, package: &str) -> Result<String> {
        let deb = deb(package)?;
        let name = deb.file_name().context("a name")?;
        let shared = self.share().join(name);
        if !shared.exists() {
            // Several threads may come for it at once.
            let fresh = tempfile::NamedTempFile::new_in(self.share())?;
            std::fs::copy(&deb, fresh.path())?;
            fresh.persist(&shared)?;
        }
        Ok(format!("{SHARE}/{}", name.to_string_lossy()))
    }

    /// Installs packages on a host, as an administrator does.
    pub fn install(&self, host: usize, packages: &[&str]) -> Result<String> {
        let files = packages
            .iter()
            .map(|package| self.shared_deb(package))
            .collect::<Result<Vec<_>>>()?;
        self.exec(host, &format!("dpkg -i {}", files.join(" ")))
    }

    /// The one command that makes a host a node.
    pub fn join(&self, host: usize, cluster: &Cluster, token: &str) -> Result<String> {
        let api = std::fs::read_to_string(cluster.home().join("coordinator/endpoint"))?;
        let api = api.trim().trim_start_matches("https://");
        self.exec(host, &format!("berth-agent join {api} --token {token}"))
    }

    /// Makes all hosts nodes `host1`, `host2`, … of a cluster and waits until they are ready. `agent` is
    /// their `agent.toml`; the shipped one if empty.
    pub async fn join_all(&self, cluster: &Cluster, agent: &str) -> Result<()> {
        let token = cluster.client.token().await?;
        self.each(|host| {
            self.install(host, &["berth-agent"])?;
            if !agent.is_empty() {
                self.write(host, "/etc/berth/agent.toml", agent)?;
            }
            self.join(host, cluster, &token).map(drop)
        })?;
        until("all hosts to be ready nodes", || async {
            let status = cluster.client.status().await?;
            let ready = status.nodes.get("ready").copied().unwrap_or(0) as usize;
            Ok((ready == self.all().count(), status))
        })
        .await
    }
}
