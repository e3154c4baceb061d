//! The device files of GPUs.

use std::path::{Path, PathBuf};

/// The device files of GPUs below `dev`.
pub(super) fn gpu_devices(dev: &Path) -> Vec<PathBuf> {
    let named = |folder: PathBuf, prefix: &'static str| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .filter(move |entry| {
                entry
                    .file_name()
                    .as_encoded_bytes()
                    .starts_with(prefix.as_bytes())
            })
            .filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_dir()))
            .map(|entry| entry.path())
    };
    let caps = dev.join("nvidia-caps");
    let mut found: Vec<PathBuf> = named(dev.to_owned(), "nvidia")
        .chain(named(caps, ""))
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_of_a_gpu_is_found() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("nvidia-caps")).unwrap();
        for name in ["nvidia0", "nvidiactl", "null", "nvidia-caps/nvidia-cap1"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let found = gpu_devices(dir.path());
        let expected = ["nvidia-caps/nvidia-cap1", "nvidia0", "nvidiactl"];
        assert_eq!(found, expected.map(|name| dir.path().join(name)));
    }
}
