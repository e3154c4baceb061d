//! The data folder of a local Berth.

use std::fs::{File, TryLockError};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

/// Where everything of one `berth up` lies.
pub(crate) struct Local {
    pub(crate) root: PathBuf,
    pub(crate) bin: PathBuf,
}

impl Local {
    /// The given folder, or the usual one; made if need be.
    pub(crate) fn open(data: Option<PathBuf>) -> Result<Self> {
        let root = match data {
            Some(dir) => dir,
            None => usual()?,
        };
        std::fs::create_dir_all(&root)
            .with_context(|| format!("cannot make {}", root.display()))?;
        let root = std::fs::canonicalize(&root)?;
        let me = std::env::current_exe().context("cannot find this program's own folder")?;
        let bin = me
            .parent()
            .map(PathBuf::from)
            .context("this program lies in no folder")?;
        Ok(Self { root, bin })
    }

    /// Held while something is started or stopped, so that two commands do not do it at once.
    pub(crate) fn lock(&self) -> Result<File> {
        let path = self.root.join("up.lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => bail!(
                "another `berth up` or `berth down` is at work on {}; wait for it",
                self.root.display()
            ),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }

    /// The folder of all of it, as a configuration may name it.
    pub(crate) fn root_text(&self) -> Result<String> {
        let text = self.root.to_str().map(str::to_owned);
        text.with_context(|| format!("{} is not UTF-8", self.root.display()))
    }

    pub(crate) fn coordinator(&self) -> PathBuf {
        self.root.join("coordinator")
    }

    pub(crate) fn gateway(&self) -> PathBuf {
        self.root.join("gateway")
    }

    pub(crate) fn node(&self, number: u16) -> PathBuf {
        self.root.join(format!("node-{number}"))
    }

    /// What `up` tells a node's agent.
    pub(crate) fn agent_config(&self, number: u16) -> PathBuf {
        self.node(number).join("agent.toml")
    }

    /// Numbers of all nodes that were ever started here.
    pub(crate) fn nodes(&self) -> Vec<u16> {
        (1..=u16::MAX)
            .take_while(|n| self.node(*n).is_dir())
            .collect()
    }

    /// One of Berth's programs, which lie beside each other.
    pub(crate) fn program(&self, name: &str) -> Result<PathBuf> {
        let path = self.bin.join(name);
        if !path.is_file() {
            bail!("{} is missing: it must lie beside `berth`", path.display());
        }
        Ok(path)
    }
}

fn usual() -> Result<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    set("XDG_DATA_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/share")))
        .map(|share| share.join("berth"))
        .context("neither XDG_DATA_HOME nor HOME is set: say --data DIR")
}
