//! Starting and stopping processes that outlive this one.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use berth_shim::identity::{self, Signal};

use super::local::Local;
use super::record::{Record, Started};

/// How often a process that shall end is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Starts a program in a session of its own, its output appended to `log/NAME.log`, and records it.
pub(crate) fn start(
    local: &Local,
    record: &mut Record,
    name: &str,
    program: PathBuf,
    args: Vec<String>,
) -> Result<()> {
    let logs = local.root.join("log");
    std::fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    let log = logs.join(format!("{name}.log"));
    let log = File::options()
        .create(true)
        .append(true)
        .open(&log)
        .with_context(|| format!("cannot write {}", log.display()))?;
    // setsid(1) is part of every Debian; it saves this crate from unsafe code between fork and exec.
    let mut child = Command::new("setsid")
        .arg(&program)
        .args(&args)
        .current_dir(&local.root)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let identity = identity::identify(child.id())?;
    // Reaps it should it end while this process lives.
    std::thread::spawn(move || child.wait());
    let identity = identity.with_context(|| format!("{name} ended at once; see log/{name}.log"))?;
    record.processes.insert(
        name.to_owned(),
        Started {
            program,
            args,
            identity,
        },
    );
    record.write(local)
}

/// The end of a process's log, for an error.
pub(crate) fn last_words(local: &Local, name: &str) -> String {
    let text =
        std::fs::read_to_string(local.root.join(format!("log/{name}.log"))).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n  ")
}

/// SIGTERM, then SIGKILL after `patience`; returns when it is gone.
pub(crate) async fn stop(record: &Record, name: &str, patience: Duration) -> Result<()> {
    let Some(started) = record.processes.get(name) else {
        return Ok(());
    };
    let sent = identity::send_signal(started.identity, Signal::TERM)?;
    let began = Instant::now();
    let mut killed = false;
    while sent && identity::is_alive(started.identity, &record.boot_id)? {
        if began.elapsed() > patience && !killed {
            identity::send_signal(started.identity, Signal::KILL)?;
            killed = true;
        }
        if began.elapsed() > patience + Duration::from_secs(10) {
            bail!("{name} (pid {}) does not end", started.identity.pid);
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
