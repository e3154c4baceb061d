//! The files themselves.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// One fleet file.
#[derive(Debug)]
pub(super) struct File {
    /// As it is shown.
    pub(super) name: String,
    /// What is in it.
    pub(super) text: String,
    /// Where its relative paths begin.
    pub(super) folder: PathBuf,
}

/// Reads files, folders of them, and standard input, in the order in which they are named. A file that is
/// named twice is read once.
pub(super) fn read(paths: &[PathBuf]) -> Result<Vec<File>> {
    let mut all: Vec<PathBuf> = Vec::new();
    for path in paths {
        let more = if path.is_dir() {
            in_folder(path)?
        } else {
            vec![path.clone()]
        };
        for path in more {
            if !all.contains(&path) {
                all.push(path);
            }
        }
    }
    all.iter().map(|path| one(path)).collect()
}

fn in_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let doing = || format!("cannot read the folder {}", folder.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(doing)? {
        let path = entry.with_context(doing)?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.extension().is_some_and(|e| e == "toml") && !hidden && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    if found.is_empty() {
        bail!(
            "the folder {} has no *.toml: an empty fleet is an empty file, so that nobody prunes everything by \
             a wrong path",
            folder.display()
        );
    }
    Ok(found)
}

fn one(path: &Path) -> Result<File> {
    let stdin = path.as_os_str() == "-";
    let text = if stdin {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .context("cannot read standard input")?;
        text
    } else {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
    };
    let folder = match path.parent() {
        Some(folder) if !stdin => folder.to_owned(),
        _ => PathBuf::new(),
    };
    Ok(File {
        name: if stdin {
            "<stdin>".to_owned()
        } else {
            path.display().to_string()
        },
        text,
        folder,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_give_their_toml_files_in_order_and_nothing_twice() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.toml", "a.toml", ".c.toml", "d.md"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        std::fs::create_dir(dir.path().join("e.toml")).unwrap();
        let files = read(&[dir.path().join("b.toml"), dir.path().to_owned()]).unwrap();
        let texts: Vec<&str> = files.iter().map(|f| f.text.as_str()).collect();
        assert_eq!(texts, ["b.toml", "a.toml"]);
        assert_eq!(files[0].folder, dir.path());
        let empty = read(&[dir.path().join("e.toml")]).unwrap_err();
        assert!(empty.to_string().contains("no *.toml"), "{empty}");
        assert!(read(&[dir.path().join("x.toml")]).is_err());
    }
}
