//! What a task left: looked at with suspicion, and made one blob.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use berth_model::digest::BlobDigest;
use berth_model::instance::Reason;
use berth_model::job::TaskOutput;
use berth_model::time::Bytes;
use berth_package::{Limits, PackageError, pack_folder};

/// An output that can be uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packed {
    /// Where its bytes are.
    pub(super) path: PathBuf,
    /// What they are.
    pub(super) output: TaskOutput,
}

fn wrong(error: String) -> Reason {
    Reason::Output { error }
}

fn here(what: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Reason {
    let text = format!("cannot {what} {}", path.display());
    move |error| Reason::Node {
        error: format!("{text}: {error}"),
    }
}

/// Looks at what was left at `left`: a file is taken as it is, a folder is packed into `archive`, always into
/// the same bytes for the same content. Blocking.
pub(super) fn pack(left: &Path, archive: &Path, most: u64) -> Result<Packed, Reason> {
    let found = match left.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(wrong(
                "the task exited with code 0 but left nothing at BERTH_JOB_OUTPUT: have it write a file or a folder \
                 of that name"
                    .to_owned(),
            ));
        }
        other => other.map_err(here("look at", left))?,
    };
    if found.is_file() {
        return file(left, most);
    }
    if found.is_dir() {
        return folder(left, archive, most);
    }
    Err(wrong(format!(
        "the task left a {} at BERTH_JOB_OUTPUT: only a file or a folder can be kept",
        kind(&found)
    )))
}

fn kind(found: &Metadata) -> &'static str {
    let kind = found.file_type();
    if kind.is_symlink() {
        "symbolic link"
    } else if kind.is_fifo() {
        "FIFO"
    } else if kind.is_socket() {
        "socket"
    } else {
        "device"
    }
}

fn too_large(most: u64) -> Reason {
    wrong(format!(
        "the task left more than {} at BERTH_JOB_OUTPUT, and max_output in agent.toml allows no more: leave less, cut \
         the input into more shards, or raise max_output",
        Bytes(most)
    ))
}

fn file(left: &Path, most: u64) -> Result<Packed, Reason> {
    let mut file = open(left)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 18];
    let mut bytes = 0;
    loop {
        let read = file.read(&mut buffer).map_err(here("read", left))?;
        if read == 0 {
            break;
        }
        bytes += read as u64;
        if bytes > most {
            return Err(too_large(most));
        }
        hasher.update(&buffer[..read]);
    }
    let blob = BlobDigest::from_bytes(*hasher.finalize().as_bytes());
    Ok(Packed {
        path: left.to_owned(),
        output: TaskOutput {
            blob,
            bytes,
            folder: false,
        },
    })
}

/// Opens a plain file: not through a link, and without waiting for a FIFO's other end.
pub(super) fn open(path: &Path) -> Result<File, Reason> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .map_err(here("open", path))
}

fn folder(left: &Path, archive: &Path, most: u64) -> Result<Packed, Reason> {
    let limits = Limits {
        total_bytes: most,
        ..Limits::default()
    };
    let packed = pack_folder(left, archive, limits).map_err(|error| match error {
        PackageError::Refused(berth_package::Refused::TooMuch {
            what: "bytes in files",
            ..
        }) => too_large(most),
        error if error.is_permanent() => wrong(format!(
            "the folder at BERTH_JOB_OUTPUT cannot be kept: {}",
            crate::chain(&error)
        )),
        error => Reason::Node {
            error: crate::chain(&error),
        },
    })?;
    Ok(Packed {
        path: archive.to_owned(),
        output: TaskOutput {
            blob: packed.blob,
            bytes: packed.bytes,
            folder: true,
        },
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn told(found: Result<Packed, Reason>) -> String {
        found.unwrap_err().to_string()
    }

    #[test]
    fn a_file_is_taken_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let left = dir.path().join("output");
        std::fs::write(&left, "abc").unwrap();
        let packed = pack(&left, &dir.path().join("a"), 3).unwrap();
        let blob = BlobDigest::from_bytes(*blake3::hash(b"abc").as_bytes());
        let output = TaskOutput {
            blob,
            bytes: 3,
            folder: false,
        };
        assert_eq!(
            packed,
            Packed {
                path: left.clone(),
                output
            }
        );
        let told = told(pack(&left, &dir.path().join("a"), 2));
        assert!(
            told.contains("more than 2B") && told.contains("max_output"),
            "{told}"
        );
    }

    #[test]
    fn a_folder_becomes_the_same_archive_every_time() {
        let dir = tempfile::tempdir().unwrap();
        let mut found = Vec::new();
        for (name, files) in [("one", ["b", "a"]), ("two", ["a", "b"])] {
            let left = dir.path().join(name);
            std::fs::create_dir_all(left.join("sub")).unwrap();
            for file in files {
                std::fs::write(left.join("sub").join(file), file).unwrap();
            }
            symlink("sub/a", left.join("link")).unwrap();
            let archive = dir.path().join(format!("{name}.tar.zst"));
            let packed = pack(&left, &archive, 2).unwrap();
            assert!(packed.output.folder);
            let bytes = std::fs::read(&archive).unwrap();
            assert_eq!(packed.output.bytes, bytes.len() as u64);
            assert_eq!(
                packed.output.blob.to_string(),
                format!("blake3:{}", blake3::hash(&bytes).to_hex())
            );
            found.push(packed.output);
        }
        assert_eq!(found[0], found[1]);
        let told = told(pack(&dir.path().join("one"), &dir.path().join("x"), 1));
        assert!(told.contains("more than 1B"), "{told}");
    }

    #[test]
    fn nothing_and_what_leads_elsewhere_is_refused_with_words() {
        let dir = tempfile::tempdir().unwrap();
        let (left, archive) = (dir.path().join("output"), dir.path().join("x"));
        let nothing = told(pack(&left, &archive, 9));
        assert!(
            nothing.contains("exited with code 0 but left nothing at BERTH_JOB_OUTPUT"),
            "{nothing}"
        );
        symlink("/etc/passwd", &left).unwrap();
        assert!(told(pack(&left, &archive, 9)).contains("symbolic link"));
        std::fs::remove_file(&left).unwrap();
        std::fs::create_dir(&left).unwrap();
        symlink("../../secret", left.join("out")).unwrap();
        let out = told(pack(&left, &archive, 9));
        assert!(
            out.contains("cannot be kept") && out.contains("leads out"),
            "{out}"
        );
        assert!(!archive.exists());
    }
}
