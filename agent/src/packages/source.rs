//! A package's own sources that its `requirements.txt` names. Whoever builds them writes beside them, and the package is
//! not to be written: so they are built in a copy.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::symlink;
use std::path::Path;

use super::venv::{REQUIREMENTS, WHEELS};

/// Files from this size on are not copied but linked to: no source is as large, and weights are.
const LARGE: u64 = 16 << 20;

/// How much of a file with requirements is looked at.
const MOST: u64 = 1 << 20;

/// How deep files with requirements may include each other.
const DEPTH: u32 = 8;

/// For how long sources are needed that are built here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Built {
    /// Until they are installed.
    Once,
    /// As long as the environment: they are used where they are (`-e`).
    InPlace,
}

/// Copies a package to a folder that is not there yet, if its requirements name sources of its own. **Blocking**
pub(super) fn copy_if_built(package: &Path, to: &Path) -> io::Result<Option<Built>> {
    let package = package.canonicalize()?;
    let built = look(&package, &package.join(REQUIREMENTS), DEPTH);
    if built.is_some() {
        fs::create_dir(to)?;
        copy(&package, to)?;
    }
    Ok(built)
}

/// What a file with requirements, and those that it includes, name of the package's own sources.
fn look(package: &Path, file: &Path, depth: u32) -> Option<Built> {
    // Nothing but files of the package: who wrote them may name anything.
    let file = file.canonicalize().ok()?;
    let depth = depth.checked_sub(1)?;
    if !file.starts_with(package) || !file.is_file() {
        return None;
    }
    let mut text = Vec::new();
    let opened = File::open(&file).ok()?;
    opened.take(MOST).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    let of_line = |line: &str| {
        let line = line.trim();
        if option(line, "-e", "--editable").is_some() {
            return Some(Built::InPlace);
        }
        let included = option(line, "-r", "--requirement").or(option(line, "-c", "--constraint"));
        if let Some(name) = included {
            return look(package, &file.with_file_name(name), depth);
        }
        names_a_folder(package, line).then_some(Built::Once)
    };
    text.lines().filter_map(of_line).max()
}

/// The value of an option that a line consists of.
fn option<'a>(line: &'a str, short: &str, long: &str) -> Option<&'a str> {
    let value = line.strip_prefix(long).or_else(|| {
        let value = line.strip_prefix(short);
        value.filter(|value| !value.starts_with('-'))
    })?;
    let value = value.split(" #").next().unwrap_or(value);
    Some(value.trim_start_matches(['=', ' ', '\t']).trim_end())
}

/// Whether a requirement is a folder with sources: by its path, or by a `file:` URL.
fn names_a_folder(package: &Path, line: &str) -> bool {
    if line.starts_with('#') {
        return false;
    }
    let end = line.find([' ', '\t', ';', '[', '#']).unwrap_or(line.len());
    let path = &line[..end];
    let by_path = path.starts_with('.') || path.contains('/');
    by_path && package.join(path).is_dir() || line.contains("file:")
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut open = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = open.pop() {
        for entry in fs::read_dir(&from)? {
            let entry = entry?;
            let (source, target) = (entry.path(), to.join(entry.file_name()));
            let found = entry.metadata()?;
            if found.is_symlink() {
                symlink(fs::read_link(&source)?, &target)?;
            } else if entry.file_name() == WHEELS || found.is_file() && found.len() >= LARGE {
                symlink(&source, &target)?;
            } else if found.is_dir() {
                fs::create_dir(&target)?;
                open.push((source, target));
            } else {
                fs::copy(&source, &target)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(requirements: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("lib/sub")).unwrap();
        fs::create_dir(dir.path().join(WHEELS)).unwrap();
        fs::write(dir.path().join("other.txt"), "-e ./lib\n").unwrap();
        fs::write(dir.path().join(REQUIREMENTS), requirements).unwrap();
        dir
    }

    #[test]
    fn a_package_is_copied_only_if_something_of_it_is_built() {
        let none = "# ./lib\nlib==1\n./wheels/x.whl\nx @ https://example.org/lib/x\n--no-index\n-r /etc/passwd\n-r ..\n";
        for (requirements, expected) in [
            (none, None),
            ("x\n./lib\n", Some(Built::Once)),
            ("  ./lib[more] ; python_version > '3'\n", Some(Built::Once)),
            (".\n", Some(Built::Once)),
            ("lib/sub # ours\n", Some(Built::Once)),
            ("x @ file:./lib\n", Some(Built::Once)),
            ("./lib\n-e .\n", Some(Built::InPlace)),
            ("--editable=./lib\n", Some(Built::InPlace)),
            ("-r other.txt # more\n", Some(Built::InPlace)),
            ("-r requirements.txt\n", None),
        ] {
            let package = package(requirements);
            let to = package.path().with_extension("copy");
            let built = copy_if_built(package.path(), &to).unwrap();
            assert_eq!(
                (built, to.exists()),
                (expected, expected.is_some()),
                "{requirements}"
            );
            let _ = fs::remove_dir_all(&to);
        }
    }

    #[test]
    fn what_is_large_is_linked_to() {
        let package = package("./lib\n");
        let weights = File::create(package.path().join("lib/weights")).unwrap();
        weights.set_len(LARGE).unwrap();
        fs::write(package.path().join("lib/sub/code.py"), "x").unwrap();
        symlink("sub", package.path().join("lib/link")).unwrap();
        let to = tempfile::tempdir().unwrap();
        let to = to.path().join("copy");
        copy_if_built(package.path(), &to).unwrap();
        let link = |path: &str| fs::read_link(to.join(path)).ok();
        let package = package.path().canonicalize().unwrap();
        assert_eq!(link("lib/weights"), Some(package.join("lib/weights")));
        assert_eq!(link(WHEELS), Some(package.join(WHEELS)));
        assert_eq!(link("lib/link"), Some("sub".into()));
        assert_eq!(link("lib/sub/code.py"), None);
        assert_eq!(fs::read(to.join("lib/sub/code.py")).unwrap(), b"x");
    }
}
