//! What must lie in an instance's work folder before it is started.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::files::{FileError, make_dir, remove_dir, replace};

use super::LaunchPlan;

/// One thing in the work folder; its path is relative to that folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A folder that holds nothing but what follows.
    Folder(PathBuf),
    /// A file.
    File {
        /// Where.
        path: PathBuf,
        /// What is in it.
        content: String,
    },
    /// A symbolic link.
    Link {
        /// Where.
        path: PathBuf,
        /// What it points at, as the instance's processes see it.
        target: PathBuf,
    },
}

impl LaunchPlan {
    /// Puts the layout into the work folder, which is given as this program sees it. What an earlier start left there
    /// is replaced.
    pub fn lay_out(&self, work: &Path) -> Result<(), FileError> {
        make_dir(work)?;
        for item in &self.layout {
            match item {
                Item::Folder(path) => {
                    let path = work.join(path);
                    remove_dir(&path)?;
                    make_dir(&path)?;
                }
                Item::File { path, content } => {
                    let path = work.join(path);
                    parent(&path)?;
                    replace(&path, content.as_bytes(), 0o600)?;
                }
                Item::Link { path, target } => link(&work.join(path), target)?,
            }
        }
        Ok(())
    }
}

fn link(path: &Path, target: &Path) -> Result<(), FileError> {
    parent(path)?;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(FileError::of("remove", path)(error));
        }
        _ => {}
    }
    std::os::unix::fs::symlink(target, path).map_err(FileError::of("make", path))
}

fn parent(path: &Path) -> Result<(), FileError> {
    path.parent().map_or(Ok(()), make_dir)
}
