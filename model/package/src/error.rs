//! What can go wrong with a package.

use std::io;

use berth_model::digest::PackageDigest;
use berth_model::manifest::ManifestErrors;

use crate::path::PathProblem;
use crate::tree::LinkProblem;

/// Why an operation on a package failed.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// The content is not a package that Berth takes; trying again does not help.
    #[error("refused: {0}")]
    Refused(#[from] Refused),
    /// The manifest has mistakes.
    #[error("{0}")]
    Manifest(#[from] ManifestErrors),
    /// The content is not the wanted one.
    #[error("wrong digest: expected {expected}, but the content is {found}")]
    Digest {
        /// What was asked for.
        expected: PackageDigest,
        /// What was there.
        found: PackageDigest,
    },
    /// Reading or writing failed.
    #[error("cannot {doing}")]
    Io {
        /// What was being done, as in "read model/weights".
        doing: String,
        /// The system's error.
        source: io::Error,
    },
}

/// The error of [`unpack`](crate::unpack).
pub type UnpackError = PackageError;

impl PackageError {
    /// Whether the content itself is at fault, so that the same bytes fail again.
    pub fn is_permanent(&self) -> bool {
        !matches!(self, Self::Io { .. })
    }

    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        |source| Self::Io {
            doing: doing.into(),
            source,
        }
    }

    pub(crate) fn errno(doing: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> Self {
        |source| Self::Io {
            doing: doing.into(),
            source: source.into(),
        }
    }
}

/// Why content is refused. Texts from inside an archive are shown escaped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A name is not allowed.
    #[error("the name {name:?} {problem}")]
    Path {
        /// The name, lossily decoded and cut.
        name: String,
        /// What is wrong with it.
        problem: PathProblem,
    },
    /// A symbolic link does not lead to something in the package.
    #[error("the link {path:?} {problem}")]
    Link {
        /// The link.
        path: String,
        /// What is wrong with it.
        problem: LinkProblem,
    },
    /// The same name twice.
    #[error("{path:?} is there twice")]
    Duplicate {
        /// The name.
        path: String,
    },
    /// Two names that are one on file systems which ignore case or Unicode form.
    #[error("{path:?} and {other:?} differ only in case or Unicode form")]
    CaseClash {
        /// The later name.
        path: String,
        /// The earlier one.
        other: String,
    },
    /// The entry above is not a folder, or comes later, or not at all.
    #[error("{path:?} is not inside a folder that comes before it")]
    Parent {
        /// The entry.
        path: String,
    },
    /// Not a file, folder or symbolic link.
    #[error("{path:?} is a {kind}; only files, folders and symbolic links can be in a package")]
    Kind {
        /// The entry.
        path: String,
        /// What it is.
        kind: &'static str,
    },
    /// Set-uid, set-gid or sticky.
    #[error("{path:?} has mode {mode:04o}: set-uid, set-gid and sticky bits are not allowed")]
    Mode {
        /// The entry.
        path: String,
        /// Its mode.
        mode: u32,
    },
    /// More than [`Limits`](crate::Limits) allow.
    #[error("too many {what}: the limit is {limit}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        limit: u64,
    },
    /// The archive grows suspiciously when it is unpacked.
    #[error("a compression bomb: {expanded} bytes from {compressed}")]
    Bomb {
        /// Bytes read so far.
        compressed: u64,
        /// Bytes they became.
        expanded: u64,
    },
    /// The archive ends too early.
    #[error("the archive is truncated")]
    Truncated,
    /// Bytes where the archive should be over.
    #[error("there is junk after the end of the {what}")]
    Junk {
        /// What ended.
        what: &'static str,
    },
    /// Not a zstd frame, a damaged one, or one that needs too much memory.
    #[error("the compressed data cannot be read: {message}")]
    Compression {
        /// What the decoder says.
        message: String,
    },
    /// A tar header that is damaged or uses what Berth does not take.
    #[error("the archive's header at byte {at} is wrong: {problem}")]
    Header {
        /// Offset in the unpacked tar stream.
        at: u64,
        /// What is wrong.
        problem: String,
    },
    /// No `berth.toml`, or it is not a readable file.
    #[error("berth.toml {problem}")]
    Manifest {
        /// What is wrong.
        problem: &'static str,
    },
    /// The manifest names something that is not in the package.
    #[error("the manifest's {key} is {path:?}, which {problem}")]
    Names {
        /// The manifest's key.
        key: &'static str,
        /// What it names.
        path: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The module will not find what it needs.
    #[error("{problem}")]
    Needs {
        /// What was found, and what to write.
        problem: String,
    },
    /// The folder changed while it was read.
    #[error("{path:?} changed while it was read; try again when nothing writes to the folder")]
    Changed {
        /// The file.
        path: String,
    },
    /// The archive would become part of the package.
    #[error("the output {path:?} is inside the package's folder; choose a place outside of it")]
    OutputInside {
        /// The output.
        path: String,
    },
}
