//! A small package to begin with.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use berth_model::id::ModelName;

use crate::error::PackageError;

const FILES: [(&str, &str, u32); 3] = [
    ("berth.toml", include_str!("../templates/berth.toml"), 0o644),
    ("server.py", include_str!("../templates/server.py"), 0o755),
    (
        "model/weights.json",
        include_str!("../templates/model/weights.json"),
        0o644,
    ),
];

/// Writes a custom package that works as it is (a linear model behind a Python server that needs only
/// the standard library) into `dir`, which is made if need be. Errors: writing fails, or one of the
/// files is there already; nothing is overwritten.
pub fn init(dir: &Path, name: &ModelName) -> Result<(), PackageError> {
    for (path, _, _) in FILES {
        let full = dir.join(path);
        if full.symlink_metadata().is_ok() {
            let error = std::io::Error::from(ErrorKind::AlreadyExists);
            return Err(PackageError::io(format!("write {}", full.display()))(error));
        }
    }
    for (path, text, mode) in FILES {
        let full = dir.join(path);
        let doing = || format!("write {}", full.display());
        if let Some(parent) = full.parent() {
            fs::create_dir_all(parent).map_err(PackageError::io(doing()))?;
        }
        let text = text.replace("@NAME@", name.as_str());
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&full)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(PackageError::io(doing()))?;
    }
    Ok(())
}
