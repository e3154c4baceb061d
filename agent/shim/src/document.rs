//! Versioned JSON files: older versions and unknown fields are read, newer versions refused.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a spec or state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The file cannot be read or written.
    #[error("cannot access {path:?}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is not the JSON that it should be.
    #[error("cannot understand {path:?}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The file was written by a newer version, which may mean things that this one does not know.
    #[error(
        "{path:?} has format version {found}, and this build reads up to {supported}: upgrade it"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        found: u32,
        /// Newest version that can be read.
        supported: u32,
    },
    /// The file is well formed and makes no sense.
    #[error("{path:?} is not usable: {why}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl DocumentError {
    /// Whether the file is simply not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Reads a document of at most version `supported`.
pub(crate) fn load<T: DeserializeOwned>(path: &Path, supported: u32) -> Result<T, DocumentError> {
    let text = std::fs::read(path).map_err(|source| DocumentError::Io {
        path: path.to_owned(),
        source,
    })?;
    parse(&text, path, supported)
}

/// Parses a document of at most version `supported`; `path` is for errors.
pub(crate) fn parse<T: DeserializeOwned>(
    text: &[u8],
    path: &Path,
    supported: u32,
) -> Result<T, DocumentError> {
    let json = |source| DocumentError::Json {
        path: path.to_owned(),
        source,
    };
    // The version comes first, alone: a newer document may not fit the type at all.
    let Versioned { version } = serde_json::from_slice(text).map_err(json)?;
    if version > supported {
        return Err(DocumentError::Newer {
            path: path.to_owned(),
            found: version,
            supported,
        });
    }
    serde_json::from_slice(text).map_err(json)
}

/// Writes a document by way of a temporary file and a rename.
pub(crate) fn store<T: Serialize>(path: &Path, value: &T) -> Result<(), DocumentError> {
    let text = serde_json::to_vec(value).map_err(|source| DocumentError::Json {
        path: path.to_owned(),
        source,
    })?;
    let io = |source| DocumentError::Io {
        path: path.to_owned(),
        source,
    };
    let temporary = path.with_extension("tmp");
    let mut file = std::fs::File::create(&temporary).map_err(io)?;
    file.write_all(&text).map_err(io)?;
    drop(file);
    std::fs::rename(&temporary, path).map_err(io)
}
