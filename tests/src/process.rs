//! Daemons under test.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A program of the build under test: in `BERTH_BIN_DIR`, else where `cargo xtask build` puts it.
pub fn bin(name: &str) -> Result<PathBuf> {
    let dir = match std::env::var_os("BERTH_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        // …/target/debug/deps/THIS or …/target/debug/examples/THIS
        None => std::env::current_exe()?
            .ancestors()
            .nth(3)
            .map(|target| target.join("berth/bin"))
            .context("the test program lies nowhere")?,
    };
    let path = dir.join(name);
    if !path.exists() {
        bail!(
            "{} is not there: run `cargo xtask build` first",
            path.display()
        );
    }
    Ok(path)
}

/// A daemon: its program, arguments and log; killed when dropped.
pub struct Daemon {
    name: String,
    command: Vec<String>,
    program: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Daemon {
    /// Starts `program` with its output appended to `log`.
    pub fn start(name: &str, program: &Path, args: &[&str], log: PathBuf) -> Result<Self> {
        let command = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut daemon = Self {
            name: name.to_owned(),
            command,
            program: program.to_path_buf(),
            log,
            child: None,
        };
        daemon.restart()?;
        Ok(daemon)
    }

    /// Starts it again, as a supervisor would.
    pub fn restart(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(&self.program)
            .args(&self.command)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .env(
                "BERTH_LOG",
                std::env::var("BERTH_LOG").unwrap_or_else(|_| "info".to_owned()),
            )
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Its process id.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only for a child that is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and waits until it has ended; its exit status.
    pub fn terminate(&mut self) -> Result<std::process::ExitStatus> {
        let mut child = self
            .child
            .take()
            .with_context(|| format!("{} does not run", self.name))?;
        kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
        Ok(child.wait()?)
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Processes that run now and whose environment holds `text`; zombies do not count.
pub fn pids_with(text: &str) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok())
        .filter(|pid| environment_holds(*pid, text))
        .collect()
}

fn environment_holds(pid: u32, text: &str) -> bool {
    let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let is_zombie = String::from_utf8_lossy(&read("stat"))
        .rsplit(") ")
        .next()
        .is_some_and(|rest| rest.starts_with('Z'));
    !is_zombie
        && read("environ").split(|byte| *byte == 0).any(|var| {
            OsStr::new(&*String::from_utf8_lossy(var))
                .to_string_lossy()
                .contains(text)
        })
}
