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
        lay_out(&self.layout, work)
    }
}

fn lay_out(items: &[Item], work: &Path) -> Result<(), FileError> {
    make_dir(work)?;
    for item in items {
        match item {
            Item::Folder(path) => {
                make_way(work, path)?;
                let path = work.join(path);
                remove_dir(&path)?;
                make_dir(&path)?;
            }
            Item::File { path, content } => {
                make_way(work, path)?;
                replace(&work.join(path), content.as_bytes(), 0o600)?;
            }
            Item::Link { path, target } => {
                make_way(work, path)?;
                link(&work.join(path), target)?;
            }
        }
    }
    Ok(())
}

fn link(path: &Path, target: &Path) -> Result<(), FileError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(FileError::of("remove", path)(error));
        }
        _ => {}
    }
    std::os::unix::fs::symlink(target, path).map_err(FileError::of("make", path))
}

/// Makes the folders above a path in the work folder. The folder is the module's, and this program may be root: what the
/// module left in the way, such as a link to a folder of somebody else, is removed, not followed.
fn make_way(work: &Path, path: &Path) -> Result<(), FileError> {
    let above: Vec<&Path> = path.ancestors().skip(1).collect();
    for folder in above.into_iter().rev() {
        let folder = work.join(folder);
        match folder.symlink_metadata() {
            Ok(found) if !found.is_dir() => {
                std::fs::remove_file(&folder).map_err(FileError::of("remove", &folder))?;
            }
            _ => {}
        }
        make_dir(&folder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_a_module_left_in_the_way_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (work, others) = (dir.path().join("work"), dir.path().join("others"));
        std::fs::create_dir_all(work.join("models")).unwrap();
        std::fs::create_dir_all(&others).unwrap();
        std::fs::write(others.join("kept"), "").unwrap();
        for name in ["config", "links", "folder"] {
            symlink(&others, work.join(name)).unwrap();
        }
        let items = vec![
            Item::File {
                path: "config/sub/file".into(),
                content: "x".to_owned(),
            },
            Item::Link {
                path: "links/one".into(),
                target: "/target".into(),
            },
            Item::Folder("folder".into()),
        ];
        // As it is for the first start, and as it is for the next.
        for _ in 0..2 {
            lay_out(&items, &work).unwrap();
            let left: Vec<_> = std::fs::read_dir(&others).unwrap().flatten().collect();
            assert_eq!(left.len(), 1);
            let text = std::fs::read_to_string(work.join("config/sub/file"));
            assert_eq!(text.unwrap(), "x");
            let target = work.join("links/one").read_link().unwrap();
            assert_eq!(target, Path::new("/target"));
            assert_eq!(work.join("folder").read_dir().unwrap().count(), 0);
        }
    }
}
