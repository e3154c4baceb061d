//! The canonical index: what a package is, apart from how it is carried.
//!
//! # Canonical form
//! Text in UTF-8; every line ends with one `\n`. No name holds a control character, so that lines
//! and fields cannot be confused. Numbers are decimal without leading zeros, hashes 64 lower-case
//! hexadecimal digits.
//!
//! ```text
//! berth-index 1 fastcdc-2020 262144 262144 1048576
//! d 0755 model
//! f 0644 700000 HASH model/weights
//! c 400000 HASH
//! c 300000 HASH
//! l model/latest
//! t weights
//! ```
//!
//! The first line names the format and the chunking (FastCDC's least, average and greatest chunk in
//! bytes).
//! Then the entries in bytewise order of their paths; the package's folder itself is not listed.
//! `d` is a folder. `f` is a file: mode (`0755` if its owner may execute it, else `0644`), size,
//! BLAKE3, path; its content-defined chunks follow as `c` lines in order (length, BLAKE3), none for an
//! empty file. `l` is a symbolic link, and the `t` line after it the text of its target.
//!
//! The package's digest is the SHA-256 of these bytes.

use std::fmt::Write;

use berth_model::digest::PackageDigest;
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::chunk::{CHUNK_AVERAGE, CHUNK_MAX, CHUNK_MIN};

/// Everything in a package, in bytewise order of the paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Index {
    entries: Vec<Entry>,
}

/// One file, folder or symbolic link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Path from the package's folder, `/`-separated.
    pub path: String,
    /// What it is.
    #[serde(flatten)]
    pub kind: EntryKind,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum EntryKind {
    /// A folder.
    Dir,
    /// A regular file.
    File {
        /// Whether its mode is 0755 rather than 0644.
        executable: bool,
        /// Bytes.
        size: u64,
        /// BLAKE3 of the content.
        #[serde(serialize_with = "as_hex")]
        hash: blake3::Hash,
        /// The content-defined chunks, in order; none for an empty file.
        chunks: Vec<Chunk>,
    },
    /// A symbolic link to something else in the package.
    Link {
        /// The link's text.
        target: String,
    },
}

/// A content-defined chunk of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Chunk {
    /// Bytes.
    pub length: u32,
    /// BLAKE3 of the chunk.
    #[serde(serialize_with = "as_hex")]
    pub hash: blake3::Hash,
}

fn as_hex<S: Serializer>(hash: &blake3::Hash, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(hash.to_hex().as_str())
}

impl Index {
    /// Sorts the entries. The caller has made sure that no path is there twice.
    pub(crate) fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Self { entries }
    }

    /// The entries in bytewise order of their paths.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry of a path.
    pub fn get(&self, path: &str) -> Option<&Entry> {
        let at = self
            .entries
            .binary_search_by(|entry| entry.path.as_str().cmp(path))
            .ok()?;
        self.entries.get(at)
    }

    /// How many regular files there are, and their bytes together.
    pub fn files(&self) -> (u64, u64) {
        self.entries
            .iter()
            .fold((0, 0), |(count, bytes), entry| match entry.kind {
                EntryKind::File { size, .. } => (count + 1, bytes + size),
                _ => (count, bytes),
            })
    }

    /// The canonical form, as the module's documentation describes it.
    pub fn canonical(&self) -> String {
        let mut text =
            format!("berth-index 1 fastcdc-2020 {CHUNK_MIN} {CHUNK_AVERAGE} {CHUNK_MAX}\n");
        for Entry { path, kind } in &self.entries {
            // Writing to a String cannot fail.
            let _ = match kind {
                EntryKind::Dir => writeln!(text, "d 0755 {path}"),
                EntryKind::File {
                    executable,
                    size,
                    hash,
                    chunks,
                } => {
                    let mode = if *executable { "0755" } else { "0644" };
                    let _ = writeln!(text, "f {mode} {size} {} {path}", hash.to_hex());
                    chunks.iter().try_for_each(|chunk| {
                        writeln!(text, "c {} {}", chunk.length, chunk.hash.to_hex())
                    })
                }
                EntryKind::Link { target } => writeln!(text, "l {path}\nt {target}"),
            };
        }
        text
    }

    /// The package's identity: SHA-256 of [`Index::canonical`].
    pub fn digest(&self) -> PackageDigest {
        PackageDigest::from_bytes(Sha256::digest(self.canonical()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_form_is_pinned() {
        let hash = blake3::hash(b"abc");
        let file = |path: &str, executable| Entry {
            path: path.into(),
            kind: EntryKind::File {
                executable,
                size: 3,
                hash,
                chunks: vec![Chunk { length: 3, hash }],
            },
        };
        let index = Index::new(vec![
            file("model/x", true),
            Entry {
                path: "model".into(),
                kind: EntryKind::Dir,
            },
            Entry {
                path: "l".into(),
                kind: EntryKind::Link {
                    target: "model/x".into(),
                },
            },
            file("berth.toml", false),
        ]);
        let abc = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";
        assert_eq!(
            index.canonical(),
            format!(
                "berth-index 1 fastcdc-2020 262144 262144 1048576\n\
                 f 0644 3 {abc} berth.toml\nc 3 {abc}\nl l\nt model/x\nd 0755 model\n\
                 f 0755 3 {abc} model/x\nc 3 {abc}\n"
            )
        );
        assert_eq!(index.files(), (2, 6));
        assert_eq!(
            index.get("model").map(|entry| &entry.kind),
            Some(&EntryKind::Dir)
        );
        assert!(index.get("nothing").is_none());
    }
}
