//! Putting the example package together: its files and its built program.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::run;

/// Makes the folder of `examples/dga-detector` as a package, ready for `berth model push`.
pub(crate) fn dga_detector(bin: &Path, into: &Path) -> Result<PathBuf> {
    let example = run::root().join("examples/dga-detector");
    if into.exists() {
        std::fs::remove_dir_all(into)
            .with_context(|| format!("cannot clear {}", into.display()))?;
    }
    for folder in ["bin", "model"] {
        std::fs::create_dir_all(into.join(folder))
            .with_context(|| format!("cannot make {}", into.display()))?;
    }
    for file in [
        "berth.toml",
        "README.md",
        "model/dga.bin",
        "model/metrics.json",
    ] {
        copy(&example.join(file), &into.join(file))?;
    }
    copy(&bin.join("dga-detector"), &into.join("bin/dga-detector"))?;
    Ok(into.to_path_buf())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}
