//! What the fuzz targets run. `tests/fuzz_entries.rs` runs the same over a small generated corpus, so
//! that the targets keep compiling and holding where no fuzzer is installed.

use std::path::Path;

use berth_model::digest::PackageDigest;
use berth_package::{Limits, PackageError, unpack, verify_reader};

fn limits() -> Limits {
    Limits {
        entries: 100,
        total_bytes: 8 << 20,
        ratio_from_bytes: 4 << 20,
        ..Limits::default()
    }
}

/// Any manifest: no panic, and an error names places that exist.
pub(crate) fn manifest(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Err(errors) = berth_model::manifest::parse(text, "berth.toml") {
        assert!(!errors.errors.is_empty());
        let lines = text.split('\n').count();
        assert!(
            errors
                .errors
                .iter()
                .all(|e| e.line >= 1 && e.line as usize <= lines)
        );
    }
}

/// Any archive: no panic, checking and unpacking agree, nothing is written outside of the store, and
/// nothing of a refused archive stays. The first byte chooses: odd, the rest is the archive; even, the
/// rest is a tar stream that is compressed first, as a fuzzer will hardly find valid zstd.
pub(crate) fn unpack_archive(data: &[u8], scratch: &Path) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    let compressed;
    let archive = if kind % 2 == 1 {
        rest
    } else {
        let Ok(bytes) = zstd::encode_all(rest, 1) else {
            return;
        };
        compressed = bytes;
        &compressed[..]
    };
    let seen = verify_reader(archive, None, limits());
    let digest = match &seen {
        Ok(summary) => summary.digest,
        Err(PackageError::Io { .. }) => panic!("a reader in memory failed"),
        Err(_) => PackageDigest::from_bytes([0; 32]),
    };
    let store = scratch.join("store");
    let result = unpack(archive, digest, &store, limits());
    let names = |folder: &Path| -> Vec<_> {
        std::fs::read_dir(folder).map_or_else(
            |_| Vec::new(),
            |entries| {
                entries
                    .filter_map(|e| e.ok().map(|e| e.file_name()))
                    .collect()
            },
        )
    };
    assert_eq!(result.is_ok(), seen.is_ok());
    let wanted: Vec<_> = result.iter().filter_map(|p| p.path.file_name()).collect();
    assert_eq!(names(&store), wanted);
    assert_eq!(names(scratch), ["store"]);
    if result.is_ok() {
        assert!(berth_package::remove(&store, digest).is_ok_and(|removed| removed));
    }
}
