//! Running what a package brings along while it is prepared: whoever wrote it is trusted no more than its module is. So
//! it runs as a start of its own, under the node's process runtime with all that keeps modules apart.

use std::collections::BTreeMap;
use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_logfile::{Frames, Tail, TailReader};
use berth_model::instance::Reason;
use berth_model::resources::Resources;
use berth_shim::spec::{LogSpec, ProcessSpec, SPEC_VERSION, Spec};
use berth_shim::state::LOGS_DIR;

use super::Problem;
use crate::runtime::{
    Adopted, Confinement, End, EndReason, EndState, Handle, Launch, Runtime, RuntimeError,
};

/// How much of the end of what a program said is looked at.
const TAIL: usize = 16 * 1024;

/// How much longer than its deadline a program may run where systemd keeps watch, too: the agent is to be first.
const SPARE: Duration = Duration::from_secs(60);

/// What of the agent's environment a program is told, by the beginnings of names: how to reach the network, and the
/// installer's own settings.
const TOLD: [&str; 10] = [
    "PATH",
    "LANG",
    "LC_",
    "PIP_",
    "SSL_CERT_",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
];

/// A program, and what it is for.
pub(super) struct Program<'a> {
    /// Name in logs and errors.
    pub(super) name: &'a str,
    /// What of the package it is for, to tell its control group or unit by.
    pub(super) purpose: String,
    /// Program and arguments.
    pub(super) argv: Vec<String>,
    /// Its working folder.
    pub(super) cwd: &'a Path,
    /// The one folder that it may write; its home is below.
    pub(super) folder: &'a Path,
    /// What of the agent's it may read.
    pub(super) readable: Vec<PathBuf>,
    /// Whether it may dial anything.
    pub(super) online: bool,
    /// How long it may take.
    pub(super) deadline: Duration,
}

/// The start folder of what writes to a folder: beside it.
fn start_of(folder: &Path) -> PathBuf {
    folder.with_extension("start")
}

/// Runs a program to its end; afterwards all that it left in its folder is the agent's again, and nobody else may write
/// it. The inner error is the end of what it said.
pub(super) async fn run(
    runtime: &Arc<dyn Runtime>,
    program: Program<'_>,
) -> Result<Result<(), String>, Problem> {
    let name = program.name.to_owned();
    let failed = |error: String| Problem::here(format!("cannot run {name}: {error}"));
    let home = program.folder.join(".home");
    fs::create_dir_all(&home).map_err(|error| failed(error.to_string()))?;
    let (folder, deadline) = (program.folder.to_owned(), program.deadline);
    let launch = launch(program, &home);
    let starting = runtime.clone();
    let started = blocking(move || {
        let handle = starting.start(&launch)?;
        Ok::<_, RuntimeError>(AtWork(Some((starting, handle))))
    });
    let mut at_work = started
        .await
        .map_err(failed)?
        .map_err(|error| failed(crate::chain(&error)))?;
    let Some((_, handle)) = at_work.0.clone() else {
        return Err(failed("it was called off".to_owned()));
    };
    let ended = tokio::time::timeout(deadline, runtime.ended(&handle)).await;
    // Whatever it left running ends now, in order or not.
    let killed = blocking(move || at_work.end()).await;
    killed
        .map_err(failed)?
        .map_err(|error| failed(crate::chain(&error)))?;
    let Ok(end) = ended else {
        return Err(Problem::here(format!(
            "{name} took longer than {deadline:?}"
        )));
    };
    let taken = blocking(move || {
        let _ = fs::remove_dir_all(folder.join(".home"));
        let said = said(&handle, &end);
        take_back(&folder).map(|()| (end, said))
    });
    let (end, said) = taken
        .await
        .map_err(failed)?
        .map_err(|error| failed(format!("cannot take back what it made: {error}")))?;
    let done = end.processes.first().map(|process| &process.end) == Some(&End::Exited { code: 0 });
    if done && !end.stop_requested {
        return Ok(Ok(()));
    }
    let reason = || Reason::from(&end.reason).to_string();
    // Of its memory it cannot speak itself.
    let starved = matches!(end.reason, EndReason::OutOfMemory { .. });
    Ok(Err(said.filter(|_| !starved).unwrap_or_else(reason)))
}

/// A program that runs, and is ended when nobody waits for it any more: so it is when the agent stops. What that cannot end,
/// the next agent does.
struct AtWork(Option<(Arc<dyn Runtime>, Handle)>);

impl AtWork {
    /// **Blocking**, bounded by some seconds.
    fn end(&mut self) -> Result<(), RuntimeError> {
        let running = self.0.take();
        running.map_or(Ok(()), |(runtime, handle)| runtime.kill(&handle))
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            let error = crate::chain(&error);
            tracing::warn!(error, "cannot end what prepared a package");
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| format!("it broke off: {error}"))
}

fn launch(program: Program<'_>, home: &Path) -> Launch {
    let mut env: BTreeMap<String, String> = std::env::vars()
        .filter(|(name, _)| {
            let name = name.to_ascii_uppercase();
            TOLD.iter().any(|told| name.starts_with(told))
        })
        .collect();
    for variable in ["HOME", "TMPDIR"] {
        env.insert(variable.to_owned(), home.to_string_lossy().into_owned());
    }
    let process = ProcessSpec {
        name: program.name.to_owned(),
        argv: program.argv,
        env,
        cwd: program.cwd.to_owned(),
        primary: true,
    };
    let mut readable = program.readable;
    if !program.cwd.starts_with(program.folder) {
        readable.push(program.cwd.to_owned());
    }
    Launch {
        dir: start_of(program.folder),
        spec: Spec {
            version: SPEC_VERSION,
            instance: program.purpose,
            start: 1,
            processes: vec![process],
            stop_grace_ms: 0,
            log: LogSpec::default(),
            sandbox: None,
        },
        container: None,
        confinement: Some(Confinement {
            writable: vec![program.folder.to_owned()],
            readable,
            resources: bounds(),
            egress: program.online.then(|| "*".to_owned()).into_iter().collect(),
            deadline: Some(program.deadline + SPARE),
            ..Confinement::default()
        }),
    }
}

/// What a program may use: half of the machine, so that what runs on it goes on. A module's own limits say nothing of what
/// installing takes, and modules share what is installed.
fn bounds() -> Resources {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Resources {
        memory_bytes: crate::facts::memory() / 2,
        cpu_millis: (cores as u64 * 500).max(1000),
        ..Resources::default()
    }
}

/// Ends what is at work on a folder by what its start folder tells. False if it may still run.
pub(super) fn call_off(runtime: &Arc<dyn Runtime>, start: &Path) -> bool {
    let ended = match runtime.adopt(start) {
        Ok(Adopted::Running(handle)) => runtime.kill(&handle),
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = &ended {
        let error = crate::chain(error);
        tracing::warn!(?start, error, "cannot end what prepared a package");
    }
    ended.is_ok()
}

/// Whether a path is the start folder of what writes to another.
pub(super) fn is_start(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "start")
}

/// What a program said last: its errors if it marks some, else its last lines.
fn said(handle: &Handle, end: &EndState) -> Option<String> {
    let text = logged(&handle.dir.join(LOGS_DIR)).or_else(|| end.stderr_tail.clone())?;
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

/// The end of a log.
fn logged(logs: &Path) -> Option<String> {
    let mut tail = TailReader::new(logs, 0);
    let mut text = Vec::new();
    loop {
        match tail.read(1 << 20).ok()? {
            Tail::Frames { bytes, .. } => {
                for (_, frame) in Frames::new(&bytes).map_while(Result::ok) {
                    if frame.is_line() {
                        text.extend_from_slice(frame.payload);
                        text.push(b'\n');
                    }
                }
                let over = text.len().saturating_sub(TAIL);
                text.drain(..over);
            }
            Tail::Missing { next } => tail.seek(next),
            Tail::NothingNew => break,
        }
    }
    (!text.is_empty()).then(|| String::from_utf8_lossy(&text).into_owned())
}

/// Makes all in a folder the agent's again, for everybody to read. Nobody is at work in it any more. What is neither file,
/// folder nor link is removed, and what is a second name of somebody else's file is left as it is.
fn take_back(folder: &Path) -> io::Result<()> {
    let (me, my_group) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let theirs = fs::symlink_metadata(folder)?.uid();
    if theirs == me {
        return Ok(());
    }
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        let found = fs::symlink_metadata(&path)?;
        if found.is_dir() {
            for entry in fs::read_dir(&path)? {
                open.push(entry?.path());
            }
        }
        if found.uid() != theirs {
            continue;
        }
        lchown(&path, Some(me), Some(my_group))?;
        match mode(&found) {
            Some(mode) => fs::set_permissions(&path, Permissions::from_mode(mode))?,
            None if found.is_symlink() => {}
            None => fs::remove_file(&path)?,
        }
    }
    Ok(())
}

/// The rights of what everybody may read and nobody but the agent write.
fn mode(found: &Metadata) -> Option<u32> {
    if found.is_dir() {
        return Some(0o755);
    }
    let executable = found.mode() & 0o111 != 0;
    found
        .is_file()
        .then_some(if executable { 0o755 } else { 0o644 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{IsolationConfig, LauncherChoice};
    use crate::runtime::conformance;
    use crate::runtime::process::ProcessRuntime;

    /// By units where a test of hosts asks for them.
    fn runtime() -> Arc<dyn Runtime> {
        let units = std::env::var_os("BERTH_TEST_SYSTEMD").is_some_and(|value| value == "1");
        let config = IsolationConfig {
            launcher: match units {
                true => LauncherChoice::Systemd,
                false => LauncherChoice::Fork,
            },
            ..IsolationConfig::default()
        };
        let (shim, data) = (conformance::shim(), conformance::data());
        Arc::new(ProcessRuntime::isolated(shim, &config, &data).unwrap())
    }

    fn program<'a>(folder: &'a Path, script: &str) -> Program<'a> {
        Program {
            name: "pip",
            purpose: "venv-test".to_owned(),
            argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            cwd: Path::new("/usr"),
            folder,
            readable: Vec::new(),
            online: false,
            deadline: Duration::from_secs(60),
        }
    }

    async fn shell(folder: &Path, script: &str) -> Result<(), String> {
        run(&runtime(), program(folder, script)).await.unwrap()
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_ended() {
        let place = tempfile::tempdir_in(conformance::data()).unwrap();
        let folder = place.path().join("one");
        fs::create_dir(&folder).unwrap();
        let (runtime, at) = (runtime(), folder.clone());
        let by = runtime.clone();
        let task = tokio::spawn(async move {
            let script = format!("touch {}/begun; exec sleep 600", at.display());
            run(&by, program(&at, &script)).await.map(|_| ())
        });
        while !folder.join("begun").exists() {
            tokio::task::yield_now().await;
        }
        // As when the agent's event loop ends.
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        // Its start may not have been reported yet: then it is ended as soon as it has.
        let ended = async {
            let start = start_of(&folder);
            while matches!(runtime.adopt(&start).unwrap(), Adopted::Running(_)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
        assert!(ended.is_ok(), "it still runs");
    }

    #[test]
    fn a_program_may_use_half_of_the_machine() {
        let (folder, home) = (Path::new("/data/one"), Path::new("/data/one/.home"));
        let launch = launch(program(folder, "exit 0"), home);
        let kept_to = launch.confinement.unwrap();
        let all = crate::facts::memory();
        assert!(all > 0);
        assert_eq!(kept_to.resources.memory_bytes, all / 2);
        assert!(kept_to.resources.cpu_millis >= 1000);
        assert_eq!(kept_to.deadline, Some(Duration::from_secs(120)));
    }

    #[tokio::test]
    async fn what_a_program_leaves_is_the_agents_again() {
        if !rustix::process::geteuid().is_root() {
            berth_skipped::skip("isolation", "users and control groups need root");
            return;
        }
        let place = tempfile::tempdir_in(conformance::data()).unwrap();
        let key = place.path().join("key");
        fs::write(&key, "secret").unwrap();
        fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        let folder = place.path().join("one");
        fs::create_dir(&folder).unwrap();
        // A unit refuses set-user-id files at once.
        let script = format!(
            "cd {0} && mkdir -p sub && echo x > sub/file && cp /bin/true program && (chmod 4700 program || chmod 700 program) && \
             mkfifo fifo && ln -s {1} link && echo y > \"$HOME/temporary\" && ! cat {1} && test $(id -u) != 0",
            folder.display(),
            key.display()
        );
        shell(&folder, &script).await.unwrap();
        let found = |path: &str| fs::symlink_metadata(folder.join(path)).unwrap();
        for (path, mode) in [("sub", 0o755), ("sub/file", 0o644), ("program", 0o755)] {
            assert_eq!(
                (found(path).uid(), found(path).mode() & 0o7777),
                (0, mode),
                "{path}"
            );
        }
        assert_eq!(found("link").uid(), 0);
        assert_eq!(fs::metadata(&key).unwrap().mode() & 0o777, 0o600);
        assert!(!folder.join("fifo").exists() && !folder.join(".home").exists());
    }

    #[tokio::test]
    async fn a_failure_is_told_in_the_programs_words() {
        let place = tempfile::tempdir_in(conformance::data()).unwrap();
        let folder = place.path().join("one");
        fs::create_dir(&folder).unwrap();
        let script = "echo much; echo 'ERROR: no such thing' >&2; echo more; exit 3";
        let said = shell(&folder, script).await.unwrap_err();
        assert_eq!(said, "no such thing");
        let folder = place.path().join("two");
        fs::create_dir(&folder).unwrap();
        let said = shell(&folder, "exit 3").await.unwrap_err();
        assert!(said.contains("3"), "{said}");
    }
}
