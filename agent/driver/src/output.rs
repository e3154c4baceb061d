//! A file that appears complete and durable, or not at all.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// A file under a temporary name until it is complete.
pub(crate) struct Output {
    path: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
}

/// The temporary name beside a path.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

/// Makes what happened in the folder of a path durable.
pub(crate) fn sync_parent(path: &Path) -> Result<(), Failure> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    File::open(parent)
        .and_then(|dir| dir.sync_all())
        .map_err(Failure::write(parent))
}

impl Output {
    /// Begins; what an earlier attempt left is overwritten.
    pub(crate) fn begin(path: &Path) -> Result<Self, Failure> {
        let temporary = temporary(path);
        let file = File::create(&temporary).map_err(Failure::write(&temporary))?;
        Ok(Self {
            path: path.to_owned(),
            temporary,
            file: BufWriter::with_capacity(1 << 18, file),
        })
    }

    /// Appends.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file
            .write_all(bytes)
            .map_err(Failure::write(&self.temporary))
    }

    /// All is written: it appears.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        let synced = self
            .file
            .flush()
            .and_then(|()| self.file.get_ref().sync_all());
        synced.map_err(Failure::write(&self.temporary))?;
        std::fs::rename(&self.temporary, &self.path).map_err(Failure::write(&self.path))?;
        sync_parent(&self.path)
    }
}
