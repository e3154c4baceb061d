//! What runs, on disk: so that a second `up` starts only what is missing, and `down` finds everything.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use berth_shim::identity;
use berth_shim::state::ProcessIdentity;
use serde::{Deserialize, Serialize};

use super::local::Local;

/// The processes of one local Berth, by name (`coordinator`, `gateway`, `node-1`, …).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The boot in which they were started.
    pub(crate) boot_id: String,
    pub(crate) processes: BTreeMap<String, Started>,
}

/// One started process and how to start it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Started {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) identity: ProcessIdentity,
}

impl Record {
    /// What is recorded; of an earlier boot nothing runs any more.
    pub(crate) fn read(local: &Local) -> Result<Self> {
        let boot_id = identity::boot_id().context("cannot read the boot id")?;
        let path = local.root.join("up.json");
        let record: Self = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| {
                format!(
                    "{}: remove it and stop what it lists by hand",
                    path.display()
                )
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::default(),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        if record.boot_id == boot_id {
            return Ok(record);
        }
        Ok(Self {
            boot_id,
            ..Self::default()
        })
    }

    /// Replaces the file, all of it or nothing.
    pub(crate) fn write(&self, local: &Local) -> Result<()> {
        let path = local.root.join("up.json");
        let doing = || format!("cannot write {}", path.display());
        let fresh = path.with_extension("json.new");
        let mut file = std::fs::File::create(&fresh).with_context(doing)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)
            .with_context(doing)?;
        file.sync_all().with_context(doing)?;
        std::fs::rename(&fresh, &path).with_context(doing)
    }

    /// Whether the named process still runs: that very one, not another with its pid.
    pub(crate) fn runs(&self, name: &str) -> bool {
        self.processes
            .get(name)
            .is_some_and(|p| identity::is_alive(p.identity, &self.boot_id).unwrap_or(false))
    }
}
