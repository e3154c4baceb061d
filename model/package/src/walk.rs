//! The content of a folder that is to become a package.

use std::fs::{self, Metadata};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use crate::error::{PackageError, Refused};
use crate::limits::Limits;
use crate::path;
use crate::tree::{NodeKind, Tree};

/// Something to be packed.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) kind: SourceKind,
}

pub(crate) enum SourceKind {
    Dir,
    File { executable: bool, size: u64 },
    Link { target: String },
}

/// Everything below `dir` in bytewise order of the paths, checked as an archive would be.
pub(crate) fn walk(dir: &Path, limits: Limits) -> Result<Vec<Source>, PackageError> {
    let mut found = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let at = dir.join(&folder);
        let failed = || format!("read the folder {}", at.display());
        for entry in fs::read_dir(&at).map_err(PackageError::io(failed()))? {
            let entry = entry.map_err(PackageError::io(failed()))?;
            let name = entry.file_name();
            let mut full = folder.clone().into_bytes();
            if !folder.is_empty() {
                full.push(b'/');
            }
            full.extend_from_slice(name.as_bytes());
            let path = path::check(&full)?.to_owned();
            let metadata = entry
                .metadata()
                .map_err(PackageError::io(format!("look at {path}")))?;
            let kind = kind(&path, &metadata, &entry.path())?;
            if matches!(kind, SourceKind::Dir) {
                folders.push(path.clone());
            }
            found.push(Source { path, kind });
            if found.len() as u64 > limits.entries {
                return Err(Refused::TooMuch {
                    what: "entries",
                    limit: limits.entries,
                }
                .into());
            }
        }
    }
    found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    let mut tree = Tree::new(limits);
    for Source { path, kind } in &found {
        let kind = match kind {
            SourceKind::Dir => NodeKind::Dir,
            SourceKind::File { size, .. } => NodeKind::File { size: *size },
            SourceKind::Link { target } => NodeKind::Link { target },
        };
        tree.add(path, kind)?;
    }
    tree.check_links()?;
    Ok(found)
}

fn kind(path: &str, metadata: &Metadata, full: &Path) -> Result<SourceKind, PackageError> {
    let kind = metadata.file_type();
    let mode = metadata.permissions().mode();
    if kind.is_dir() {
        // A set-gid bit on a folder is how teams share folders; it says nothing about the package.
        return Ok(SourceKind::Dir);
    }
    if kind.is_file() {
        if mode & 0o7000 != 0 {
            return Err(Refused::Mode {
                path: path.to_owned(),
                mode: mode & 0o7777,
            }
            .into());
        }
        return Ok(SourceKind::File {
            executable: mode & 0o100 != 0,
            size: metadata.len(),
        });
    }
    if kind.is_symlink() {
        let target =
            fs::read_link(full).map_err(PackageError::io(format!("read the link {path}")))?;
        let target = target.into_os_string().into_vec();
        let target = path::check_target(&target).map_err(|problem| Refused::Link {
            path: path.to_owned(),
            problem: crate::LinkProblem::Target(problem),
        })?;
        return Ok(SourceKind::Link {
            target: target.to_owned(),
        });
    }
    let kind = if kind.is_fifo() {
        "FIFO"
    } else if kind.is_socket() {
        "socket"
    } else {
        "device"
    };
    Err(Refused::Kind {
        path: path.to_owned(),
        kind,
    }
    .into())
}
