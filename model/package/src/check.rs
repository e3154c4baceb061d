//! Checking archives without writing anything.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use berth_model::digest::{BlobDigest, PackageDigest};
use berth_model::id::ModelName;
use berth_model::manifest::{self, Manifest};
use serde::Serialize;

use crate::archive::{self, Contents, Discard};
use crate::error::{PackageError, Refused};
use crate::index::{EntryKind, Index};
use crate::limits::Limits;
use crate::models;

/// A package and its archive in a few words.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The package's identity.
    pub digest: PackageDigest,
    /// The model's name.
    pub name: ModelName,
    /// The model's version.
    pub version: semver::Version,
    /// Regular files.
    pub files: u64,
    /// Bytes of all files.
    pub size: u64,
    /// Bytes of the archive.
    pub archive_size: u64,
    /// The archive's own identity: BLAKE3 of its bytes.
    pub archive: BlobDigest,
    /// The manifest.
    pub manifest: Manifest,
}

/// A package in every detail.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// The whole.
    pub summary: Summary,
    /// The parts.
    pub index: Index,
}

/// Reads an archive and says what is in it. Errors: as [`verify`].
pub fn inspect(file: &Path) -> Result<Inspection, PackageError> {
    let doing = format!("open {}", file.display());
    let reader = File::open(file).map_err(PackageError::io(doing))?;
    read(reader, Limits::default())
}

/// Reads a whole archive, applies every rule that unpacking applies, and compares the digest with
/// the expected one if there is any. Writes nothing.
pub fn verify(file: &Path, expected: Option<PackageDigest>) -> Result<Summary, PackageError> {
    let doing = format!("open {}", file.display());
    let reader = File::open(file).map_err(PackageError::io(doing))?;
    verify_reader(reader, expected, Limits::default())
}

/// [`verify`] for a stream.
pub fn verify_reader(
    reader: impl Read + Send,
    expected: Option<PackageDigest>,
    limits: Limits,
) -> Result<Summary, PackageError> {
    let summary = read(reader, limits)?.summary;
    expect(expected.unwrap_or(summary.digest), summary.digest)?;
    Ok(summary)
}

/// Errors: [`PackageError::Digest`] if the two differ.
pub(crate) fn expect(expected: PackageDigest, found: PackageDigest) -> Result<(), PackageError> {
    if expected == found {
        Ok(())
    } else {
        Err(PackageError::Digest { expected, found })
    }
}

fn read(reader: impl Read + Send, limits: Limits) -> Result<Inspection, PackageError> {
    let mut hashed = Hashed {
        reader,
        hasher: blake3::Hasher::new(),
        bytes: 0,
    };
    let contents = archive::read(&mut hashed, limits, &mut Discard)?;
    let archive = BlobDigest::from_bytes(*hashed.hasher.finalize().as_bytes());
    Ok(inspection(contents, archive, hashed.bytes))
}

pub(crate) fn inspection(
    Contents { index, manifest }: Contents,
    archive: BlobDigest,
    archive_size: u64,
) -> Inspection {
    let (files, size) = index.files();
    let summary = Summary {
        digest: index.digest(),
        name: manifest.package.name.clone(),
        version: manifest.package.version.clone(),
        files,
        size,
        archive_size,
        archive,
        manifest,
    };
    Inspection { summary, index }
}

/// Reads the bytes of a manifest.
pub(crate) fn manifest(bytes: &[u8]) -> Result<Manifest, PackageError> {
    let text = std::str::from_utf8(bytes).map_err(|_| Refused::Manifest {
        problem: "is not UTF-8 text",
    })?;
    Ok(manifest::parse(text, manifest::FILE_NAME)?)
}

/// Whether what the manifest names is in the package, so that a slip shows at the author's desk and
/// not on a node.
pub(crate) fn names(manifest: &Manifest, index: &Index) -> Result<(), Refused> {
    let refuse = |key, path: &str, problem| Refused::Names {
        key,
        path: path.to_owned(),
        problem,
    };
    let model = manifest.model.path.as_str();
    if model != "." && index.get(model).is_none() {
        return Err(refuse("[model] path", model, "is not in the package"));
    }
    if let Some(file) = &manifest.module.dockerfile
        && !matches!(
            index.get(file).map(|entry| &entry.kind),
            Some(EntryKind::File { .. })
        )
    {
        return Err(refuse(
            "[module] dockerfile",
            file,
            "is no file in the package",
        ));
    }
    let commands = [
        ("[module] command", Some(&manifest.module.command)),
        (
            "[transform] command",
            manifest
                .transform
                .as_ref()
                .map(|transform| &transform.command),
        ),
        (
            "[job] command",
            manifest.job.as_ref().map(|job| &job.command),
        ),
    ];
    for (key, command) in commands {
        let Some(program) = command.and_then(|command| command.first()) else {
            continue;
        };
        // A bare name is looked for on the node, and so is an absolute path.
        let relative = program.strip_prefix("./").unwrap_or(program);
        let outside = !program.contains('/') || program.starts_with('/');
        if outside || program.contains("${") {
            continue;
        }
        match index.get(relative).map(|entry| &entry.kind) {
            Some(
                EntryKind::File {
                    executable: true, ..
                }
                | EntryKind::Link { .. },
            ) => {}
            Some(EntryKind::File { .. }) => {
                return Err(refuse(key, program, "is not executable (chmod +x it)"));
            }
            Some(EntryKind::Dir) => return Err(refuse(key, program, "is a folder")),
            None => return Err(refuse(key, program, "is not in the package")),
        }
    }
    models::check(manifest, index)
}

/// Hashes what passes.
struct Hashed<R> {
    reader: R,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}
