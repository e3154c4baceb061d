//! Archives made by hand, and what a store must look like after one was refused.
#![allow(clippy::unwrap_used, reason = "helpers of tests are test code too")]
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use berth_model::digest::PackageDigest;
use berth_package::{Limits, PackageError, UnpackedPackage, unpack, verify_reader};

pub(crate) const MANIFEST: &str = "[package]\nname = \"m\"\nversion = \"0.1.0\"\n[model]\npath = \".\"\n\
                            [module]\nkind = \"custom\"\ncommand = [\"server\"]\n";

/// A tar stream in the making. Nothing is checked: that is the point.
#[derive(Clone, Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    /// With a valid manifest as the first entry.
    pub(crate) fn new() -> Self {
        Self::default().file("berth.toml", MANIFEST.as_bytes())
    }

    pub(crate) fn entry(
        mut self,
        kind: u8,
        path: &[u8],
        link: &[u8],
        mode: u32,
        data: &[u8],
    ) -> Self {
        let mut header = tar::Header::new_ustar();
        let bytes = header.as_mut_bytes();
        bytes[..path.len()].copy_from_slice(path);
        bytes[157..157 + link.len()].copy_from_slice(link);
        bytes[156] = kind;
        header.set_mode(mode);
        header.set_uid(1000);
        header.set_gid(1000);
        header.set_mtime(1_700_000_000);
        header.set_size(data.len() as u64);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.padded(data)
    }

    pub(crate) fn padded(mut self, data: &[u8]) -> Self {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, path: &str, data: &[u8]) -> Self {
        self.entry(b'0', path.as_bytes(), b"", 0o644, data)
    }

    pub(crate) fn folder(self, path: &str) -> Self {
        self.entry(b'5', path.as_bytes(), b"", 0o755, b"")
    }

    pub(crate) fn link(self, path: &str, target: &str) -> Self {
        self.entry(b'2', path.as_bytes(), target.as_bytes(), 0o777, b"")
    }

    /// Changes the last header (of an entry without data) and mends its checksum.
    pub(crate) fn twist(mut self, change: impl FnOnce(&mut [u8])) -> Self {
        let start = self.0.len() - 512;
        change(&mut self.0[start..]);
        let mut header = tar::Header::from_byte_slice(&self.0[start..]).clone();
        header.set_cksum();
        self.0[start..].copy_from_slice(header.as_bytes());
        self
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    pub(crate) fn archive(self) -> Vec<u8> {
        compress(&self.end())
    }
}

pub(crate) fn compress(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

pub(crate) fn limits() -> Limits {
    Limits {
        entries: 200,
        total_bytes: 256 << 20,
        ..Limits::default()
    }
}

/// The digest the archive really has; zeros if it is refused anyway.
pub(crate) fn digest(archive: &[u8]) -> PackageDigest {
    verify_reader(archive, None, limits())
        .map_or(PackageDigest::from_bytes([0; 32]), |summary| summary.digest)
}

/// Unpacks into a fresh store; an error must leave nothing behind.
pub(crate) fn unpacked(
    archive: &[u8],
) -> (tempfile::TempDir, Result<UnpackedPackage, PackageError>) {
    let temp = tempfile::tempdir().unwrap();
    let store = temp.path().join("store");
    let result = unpack(archive, digest(archive), &store, limits());
    let found: Vec<_> = fs::read_dir(&store)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    match &result {
        Ok(package) => assert_eq!(found, [package.path.file_name().unwrap()]),
        Err(error) => assert!(found.is_empty(), "{error} left {found:?}"),
    }
    let beside: Vec<_> = fs::read_dir(temp.path()).unwrap().collect();
    assert_eq!(
        beside.len(),
        1,
        "something was written outside of the store"
    );
    (temp, result)
}

/// The error of an archive, which reading without writing must find as well.
pub(crate) fn refused(archive: &[u8]) -> String {
    let seen = verify_reader(archive, None, limits())
        .unwrap_err()
        .to_string();
    let (_temp, result) = unpacked(archive);
    assert_eq!(result.unwrap_err().to_string(), seen);
    seen
}

/// Makes a tree from paths: `folder/`, `file=content`, `link>target`, `!file=content` executable.
pub(crate) fn tree(root: &Path, entries: &[&str]) {
    for entry in entries {
        if let Some((path, target)) = entry.split_once('>') {
            std::os::unix::fs::symlink(target, root.join(path)).unwrap();
        } else if let Some((path, content)) = entry.split_once('=') {
            let (path, mode) = path
                .strip_prefix('!')
                .map_or((path, 0o600), |path| (path, 0o700));
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        } else {
            fs::create_dir_all(root.join(entry)).unwrap();
        }
    }
}
