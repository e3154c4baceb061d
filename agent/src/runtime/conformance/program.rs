//! The shim's program, for tests.

use std::path::{Path, PathBuf};

/// The shim beside this test's own target folder, built if it is not there.
pub(crate) fn shim() -> PathBuf {
    if let Some(path) = std::env::var_os("BERTH_SHIM_BIN") {
        return path.into();
    }
    let exe = std::env::current_exe().unwrap();
    let shim = exe
        .parent()
        .and_then(Path::parent)
        .unwrap()
        .join("berth-shim");
    if !shim.exists() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let target = shim.parent().and_then(Path::parent).unwrap();
        let built = std::process::Command::new(cargo)
            .args([
                "build",
                "--quiet",
                "--package",
                "berth-shim",
                "--target-dir",
            ])
            .arg(target)
            .status()
            .unwrap();
        assert!(built.success(), "the shim cannot be built");
    }
    shim
}
