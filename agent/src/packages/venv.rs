//! Python's virtual environments: one per package, made once from its `requirements.txt`.
//!
//! An environment names its own folder in its programs, so it cannot be moved: it is made at its final place,
//! `venvs/DIGEST/RANDOM`, and found through the link `venvs/DIGEST/current`, which appears when it is complete. What was
//! interrupted is therefore never used, not even if its pip should still be at work.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use berth_model::digest::PackageDigest;
use tokio::process::Command;

use super::Problem;
use crate::files::{make_dir, remove_dir};
use crate::tools;

/// What a package says it needs.
const REQUIREMENTS: &str = "requirements.txt";

/// Where it may bring that along.
const WHEELS: &str = "wheels";

/// The link to the environment that is complete.
const CURRENT: &str = "current";

/// How long making one may take.
const DEADLINE: Duration = Duration::from_secs(15 * 60);

/// How much of the end of pip's output is looked at.
const TAIL: u64 = 16 * 1024;

/// The environment of a package, if it is there and this machine's Python can still use it.
pub(super) fn find(root: &Path, digest: PackageDigest) -> Option<PathBuf> {
    let folder = root.join(digest.hex());
    let name = std::fs::read_link(folder.join(CURRENT)).ok()?;
    let venv = folder.join(name);
    let python = venv.join("bin/python3").canonicalize().ok()?;
    // After an upgrade of the system's Python its packages are in a folder of another name.
    let name = python.file_name()?.to_str()?;
    let usable = !name.starts_with("python3.") || venv.join("lib").join(name).is_dir();
    usable.then_some(venv)
}

/// Makes the environment of a package.
pub(super) async fn make(
    root: &Path,
    digest: PackageDigest,
    package: &Path,
) -> Result<(), Problem> {
    let python = tools::python().ok_or_else(|| Problem {
        text:
            "no python3 on this node's PATH: install it with its venv module (Debian: python3-venv)"
                .to_owned(),
        permanent: true,
        node: true,
        full: false,
    })?;
    let folder = root.join(digest.hex());
    make_dir(&folder).map_err(|error| Problem::here(crate::chain(&error)))?;
    let name = format!("{:08x}", rand::random::<u32>());
    let venv = folder.join(&name);
    let made = tokio::time::timeout(DEADLINE, fill(&python, &venv, package)).await;
    let made = made.unwrap_or_else(|_| {
        Err(Problem {
            text: format!("making its Python environment took longer than {DEADLINE:?}"),
            permanent: false,
            node: true,
            full: false,
        })
    });
    let (root, kept) = (root.to_owned(), made.is_ok().then_some(name));
    let finished = tokio::task::spawn_blocking(move || finish(&root, &folder, kept.as_deref()));
    let finished = finished
        .await
        .map_err(|error| Problem::here(format!("making its environment broke off: {error}")))?;
    made.and(
        finished.map_err(|error| {
            Problem::here(format!("cannot finish its Python environment: {error}"))
        }),
    )
}

/// Makes a new environment known, once it is on disk, and deletes all others of its package.
fn finish(root: &Path, folder: &Path, name: Option<&str>) -> std::io::Result<()> {
    if let Some(name) = name {
        rustix::fs::syncfs(File::open(root)?)?;
        let link = folder.join("current.tmp");
        let _ = std::fs::remove_file(&link);
        symlink(name, &link)?;
        std::fs::rename(&link, folder.join(CURRENT))?;
        File::open(folder)?.sync_all()?;
    }
    tidy(folder);
    Ok(())
}

async fn fill(python: &Path, venv: &Path, package: &Path) -> Result<(), Problem> {
    let mut create = Command::new(python);
    create.args(["-m", "venv"]).arg(venv);
    run(create, venv).await?.map_err(|said| Problem {
        text: format!("python3 cannot make a virtual environment: {said}"),
        permanent: !no_room(&said),
        node: true,
        full: no_room(&said),
    })?;
    let wheels = package.join(WHEELS);
    let offline = wheels.is_dir();
    let mut pip = Command::new(venv.join("bin/python3"));
    pip.args(["-m", "pip", "install", "--no-input"]);
    pip.args(["--disable-pip-version-check", "--requirement", REQUIREMENTS]);
    if offline {
        pip.args(["--no-cache-dir", "--no-index", "--find-links"]);
        pip.arg(&wheels);
    }
    pip.current_dir(package);
    run(pip, venv).await?.map_err(|said| {
        let hint = match offline {
            true => "make wheels/ complete (pip download -d wheels -r requirements.txt) and push a new version",
            false => "correct requirements.txt, or bring the wheels along in wheels/, and push a new version",
        };
        let full = no_room(&said);
        let hint = if full { "make room on the disk" } else { hint };
        Problem {
            text: format!("pip cannot install {REQUIREMENTS}: {said}; {hint}"),
            // Without wheels of its own it may have been the network.
            permanent: offline && !full,
            node: full,
            full,
        }
    })
}

/// Whether a program said that the disk is full.
fn no_room(said: &str) -> bool {
    said.contains("No space left on device") || said.contains("Disk quota exceeded")
}

/// Runs a program to its end. The inner error is the end of what it said.
async fn run(mut command: Command, venv: &Path) -> Result<Result<(), String>, Problem> {
    let log = venv.with_extension("log");
    let failed = |error| Problem::here(format!("cannot run {command:?}: {error}"));
    let output = File::create(&log).map_err(failed)?;
    let errors = output.try_clone().map_err(failed)?;
    command
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .process_group(0)
        .env_remove("PYTHONHOME")
        .env_remove("PYTHONPATH");
    let mut child = command
        .spawn()
        .map_err(|error| Problem::here(format!("cannot run {command:?}: {error}")))?;
    let group = Group(child.id());
    let status = child.wait().await;
    drop(group);
    let status = status.map_err(|error| Problem::here(format!("cannot wait for pip: {error}")))?;
    if status.success() {
        return Ok(Ok(()));
    }
    Ok(Err(said(&log).unwrap_or_else(|| status.to_string())))
}

/// A program's process group, which ends with it: pip starts compilers.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let group = self.0.and_then(|pid| i32::try_from(pid).ok());
        if let Some(group) = group.and_then(rustix::process::Pid::from_raw) {
            // In order, it is gone already.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

/// What a program said last: its errors if it marks some, else its last lines.
fn said(log: &Path) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))
        .ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let errors: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("ERROR: "))
        .collect();
    let chosen = match errors.is_empty() {
        true => &lines[lines.len().saturating_sub(6)..],
        false => &errors[errors.len().saturating_sub(6)..],
    };
    (!chosen.is_empty()).then(|| chosen.join(" / "))
}

/// Deletes environments of packages that are not there, and all that was interrupted. At an agent's start.
pub(super) fn sweep(root: &Path, packages: &Path) {
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        if packages.join(entry.file_name()).is_dir() {
            tidy(&entry.path());
        } else {
            remove(&entry.path());
        }
    }
}

/// Takes the environment of a package away, at once; where it is now, to be deleted. After a crash the next sweep does.
pub(super) fn take_away(root: &Path, digest: PackageDigest) -> Option<PathBuf> {
    let gone = root.join(format!(".gone-{:016x}", rand::random::<u64>()));
    let taken = std::fs::rename(root.join(digest.hex()), &gone);
    taken.is_ok().then_some(gone)
}

/// Leaves of one package's folder the environment that is complete.
fn tidy(folder: &Path) {
    let current = std::fs::read_link(folder.join(CURRENT)).ok();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = PathBuf::from(entry.file_name());
        if name.as_os_str() != CURRENT && Some(&name) != current.as_ref() {
            remove(&entry.path());
        }
    }
}

/// Deletes a file or a folder.
pub(super) fn remove(path: &Path) {
    let removed = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => remove_dir(path).map_err(|error| crate::chain(&error)),
        _ => std::fs::remove_file(path).map_err(|error| error.to_string()),
    };
    // One whose pip is still at work, as the agent was killed: the next sweep has it.
    if let Err(error) = removed {
        tracing::warn!(
            ?path,
            error,
            "cannot delete what is left of a Python environment"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u8) -> PackageDigest {
        PackageDigest::from_bytes([n; 32])
    }

    fn package(requirements: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(WHEELS)).unwrap();
        std::fs::write(dir.path().join(REQUIREMENTS), requirements).unwrap();
        dir
    }

    #[tokio::test]
    async fn one_is_made_once_and_found_again_until_its_python_is_gone() {
        let (root, package) = (tempfile::tempdir().unwrap(), package(""));
        assert_eq!(find(root.path(), digest(1)), None);
        make(root.path(), digest(1), package.path()).await.unwrap();
        let venv = find(root.path(), digest(1)).unwrap();
        assert!(venv.join("bin/pip").is_file());
        // What was interrupted is deleted, what is complete stays.
        let folder = root.path().join(digest(1).hex());
        std::fs::create_dir(folder.join("interrupted")).unwrap();
        std::fs::write(folder.join("x.log"), "").unwrap();
        let packages = tempfile::tempdir().unwrap();
        std::fs::create_dir(packages.path().join(digest(1).hex())).unwrap();
        std::fs::create_dir(root.path().join(digest(2).hex())).unwrap();
        sweep(root.path(), packages.path());
        assert_eq!(find(root.path(), digest(1)).as_ref(), Some(&venv));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2);
        assert!(!root.path().join(digest(2).hex()).exists());
        // As after an upgrade of the system.
        let lib = std::fs::read_dir(venv.join("lib")).unwrap().next().unwrap();
        std::fs::rename(lib.unwrap().path(), venv.join("lib/python3.0")).unwrap();
        assert_eq!(find(root.path(), digest(1)), None);
        let gone = take_away(root.path(), digest(1)).unwrap();
        assert!(!folder.exists());
        remove(&gone);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
        assert_eq!(take_away(root.path(), digest(1)), None);
    }

    #[tokio::test]
    async fn a_missing_wheel_is_named_in_pips_words_and_nothing_is_left() {
        let (root, package) = (
            tempfile::tempdir().unwrap(),
            package("no-such-thing==1.2\n"),
        );
        let problem = make(root.path(), digest(1), package.path())
            .await
            .unwrap_err();
        assert!(problem.permanent && !problem.node);
        for words in ["no-such-thing==1.2", "pip download -d wheels"] {
            assert!(problem.text.contains(words), "{}", problem.text);
        }
        assert_eq!(find(root.path(), digest(1)), None);
        let left = std::fs::read_dir(root.path().join(digest(1).hex())).unwrap();
        assert_eq!(left.count(), 0);
    }
}
