//! Python's virtual environments: one per package, made once from its `requirements.txt`.
//!
//! An environment names its own folder in its programs, so it cannot be moved: it is made at its final place,
//! `venvs/DIGEST/RANDOM`, and found through the link `venvs/DIGEST/current`, which appears when it is complete. What was
//! interrupted is therefore never used, and its pip is ended by the next agent.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use berth_model::digest::PackageDigest;
use tokio::process::Command;

use super::Problem;
use super::sandbox::{self, Program};
use super::source::{self, Built};
use crate::files::{make_dir, remove_dir, replace};
use crate::runtime::Runtime;
use crate::tools;

/// What a package says it needs.
pub(super) const REQUIREMENTS: &str = "requirements.txt";

/// Where it may bring that along.
pub(super) const WHEELS: &str = "wheels";

/// The copy of the package in its environment, where pip builds what the package brings along as sources.
const SOURCES: &str = ".package";

/// The link to the environment that is complete.
const CURRENT: &str = "current";

/// How long making one may take.
const DEADLINE: Duration = Duration::from_secs(15 * 60);

/// What says by which Python an environment was made.
const CONFIG: &str = "pyvenv.cfg";

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
    runtime: &Arc<dyn Runtime>,
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
    let made = fill(&python, &venv, (digest, package), runtime).await;
    let (root, kept) = (root.to_owned(), made.is_ok().then_some(name));
    let by = runtime.clone();
    let finished =
        tokio::task::spawn_blocking(move || finish(&root, &folder, kept.as_deref(), &by));
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
fn finish(
    root: &Path,
    folder: &Path,
    name: Option<&str>,
    runtime: &Arc<dyn Runtime>,
) -> std::io::Result<()> {
    if let Some(name) = name {
        rustix::fs::syncfs(File::open(root)?)?;
        let link = folder.join("current.tmp");
        let _ = std::fs::remove_file(&link);
        symlink(name, &link)?;
        std::fs::rename(&link, folder.join(CURRENT))?;
        File::open(folder)?.sync_all()?;
    }
    tidy(folder, Some(runtime), true);
    Ok(())
}

async fn fill(
    python: &Path,
    venv: &Path,
    (digest, package): (PackageDigest, &Path),
    runtime: &Arc<dyn Runtime>,
) -> Result<(), Problem> {
    let mut create = Command::new(python);
    create.args(["-m", "venv"]).arg(venv);
    run(create).await?.map_err(|said| Problem {
        text: format!("python3 cannot make a virtual environment: {said}"),
        permanent: !no_room(&said),
        node: true,
        full: no_room(&said),
    })?;
    let config = venv.join(CONFIG);
    let unread = |error| Problem::of_disk("read", &config, &error);
    let made_by = std::fs::read(&config).map_err(unread)?;
    let offline = package.join(WHEELS).is_dir();
    let (from, to) = (package.to_owned(), venv.join(SOURCES));
    let copied = tokio::task::spawn_blocking(move || source::copy_if_built(&from, &to)).await;
    let copied = copied
        .map_err(|error| Problem::here(format!("copying its sources broke off: {error}")))?
        .map_err(|error| Problem::of_disk("copy for pip", package, &error))?;
    let sources = venv.join(SOURCES);
    let cwd = copied.map_or(package, |_| sources.as_path());
    let done = sandbox::run(runtime, pip((venv, cwd), (digest, package), offline)).await?;
    if copied == Some(Built::Once) {
        remove(&sources);
    }
    // It says to the agent where Python is; what was installed has no say in that.
    replace(&config, &made_by, 0o644).map_err(|error| Problem::here(crate::chain(&error)))?;
    done.map_err(|said| {
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

/// Installs what a package asks for. That may run whatever its author likes.
fn pip<'a>(
    (venv, cwd): (&'a Path, &'a Path),
    (digest, package): (PackageDigest, &'a Path),
    offline: bool,
) -> Program<'a> {
    let python = venv.join("bin/python3").to_string_lossy().into_owned();
    let mut argv = vec![python, "-m".to_owned(), "pip".to_owned()];
    // Nothing is kept between packages: one could leave something there for another.
    let always = [
        "install",
        "--no-input",
        "--disable-pip-version-check",
        "--no-cache-dir",
    ];
    argv.extend(always.map(str::to_owned));
    argv.extend(["--requirement", REQUIREMENTS].map(str::to_owned));
    if offline {
        argv.extend(["--no-index", "--find-links"].map(str::to_owned));
        argv.push(package.join(WHEELS).to_string_lossy().into_owned());
    }
    Program {
        name: "pip",
        purpose: format!("venv-{}", &digest.hex()[..16]),
        argv,
        cwd,
        folder: venv,
        readable: tools::python_of(venv)
            .into_iter()
            .chain([package.to_owned()])
            .collect(),
        online: !offline,
        deadline: DEADLINE,
    }
}

/// Whether a program said that the disk is full.
fn no_room(said: &str) -> bool {
    said.contains("No space left on device") || said.contains("Disk quota exceeded")
}

/// Runs a program of this machine to its end, which nothing of the package has a say in. The inner error is what it said.
async fn run(mut command: Command) -> Result<Result<(), String>, Problem> {
    command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .env_remove("PYTHONHOME")
        .env_remove("PYTHONPATH");
    let made = tokio::time::timeout(DEADLINE, command.output()).await;
    let output = made
        .map_err(|_| Problem::here(format!("{command:?} took longer than {DEADLINE:?}")))?
        .map_err(|error| Problem::here(format!("cannot run {command:?}: {error}")))?;
    if output.status.success() {
        return Ok(Ok(()));
    }
    let text =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    let text = text.concat();
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let last = lines[lines.len().saturating_sub(6)..].join(" / ");
    Ok(Err(if last.is_empty() {
        output.status.to_string()
    } else {
        last
    }))
}

/// Deletes environments of packages that are not there, and all that was interrupted. At an agent's start.
pub(super) fn sweep(root: &Path, packages: &Path, runtime: Option<&Arc<dyn Runtime>>) {
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let wanted = packages.join(entry.file_name()).is_dir();
        if tidy(&entry.path(), runtime, wanted) && !wanted {
            remove(&entry.path());
        }
    }
}

/// Takes the environment of a package away, at once; where it is now, to be deleted. After a crash the next sweep does, and
/// where something may still be at work in it.
pub(super) fn take_away(root: &Path, digest: PackageDigest) -> Option<PathBuf> {
    if starts(&root.join(digest.hex())).next().is_some() {
        return None;
    }
    let gone = root.join(format!(".gone-{:016x}", rand::random::<u64>()));
    let taken = std::fs::rename(root.join(digest.hex()), &gone);
    taken.is_ok().then_some(gone)
}

/// The start folders in one package's folder.
fn starts(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let found = std::fs::read_dir(folder).into_iter().flatten().flatten();
    found
        .map(|entry| entry.path())
        .filter(|path| sandbox::is_start(path))
}

/// Ends what was at work in one package's folder and leaves of it the environment that is complete, if that is `wanted`; and
/// what could not be ended, with the environment it works on, for the next sweep. True if there is none of that.
fn tidy(folder: &Path, runtime: Option<&Arc<dyn Runtime>>, wanted: bool) -> bool {
    let at_work: Vec<PathBuf> = starts(folder)
        .filter(|start| !runtime.is_some_and(|runtime| sandbox::call_off(runtime, start)))
        .collect();
    let mut kept: BTreeSet<PathBuf> = at_work
        .iter()
        .map(|start| start.with_extension(""))
        .collect();
    kept.extend(at_work.iter().cloned());
    if wanted {
        let current = folder.join(CURRENT);
        let complete = std::fs::read_link(&current).ok();
        kept.extend(complete.map(|name| folder.join(name)));
        kept.insert(current);
    }
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if !kept.contains(&entry.path()) {
            remove(&entry.path());
        }
    }
    at_work.is_empty()
}

/// Deletes a file or a folder.
pub(super) fn remove(path: &Path) {
    let removed = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => remove_dir(path).map_err(|error| crate::chain(&error)),
        _ => std::fs::remove_file(path).map_err(|error| error.to_string()),
    };
    if let Err(error) = removed {
        tracing::warn!(
            ?path,
            error,
            "cannot delete what is left of a Python environment"
        );
    }
}

#[cfg(test)]
mod tests;
