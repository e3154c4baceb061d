//! A real API server that is ended and started again. It is everybody's, so this test runs only when asked for:
//! `cargo nextest run -p berth-kubernetes --run-ignored only`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use berth_kubernetes::{ClusterState, Verdict};

use super::world::{FOREVER, instance, picture, run_folder, until, verdict, with_world};

struct Process {
    folder: PathBuf,
    program: Vec<String>,
}

/// The start time of a process, which tells a reused pid apart.
fn started(pid: &str) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    (fields.first() != Some(&"Z")).then(|| fields.get(19).map(|s| (*s).to_owned()))?
}

const PID: &str = "kube-apiserver.pid";

/// Whether the process that the pid file names is still that one.
pub(crate) fn api_server_runs(run: &Path) -> bool {
    let file = std::fs::read_to_string(run.join(PID)).unwrap_or_default();
    let mut words = file.split_whitespace();
    matches!((words.next(), words.next()), (Some(pid), Some(start)) if started(pid).as_deref() == Some(start))
}

fn api_server(run: &Path) -> Result<(String, Process)> {
    ensure!(api_server_runs(run), "not running");
    let file = std::fs::read_to_string(run.join(PID))?;
    let pid = file.split_whitespace().next().context("its pid")?;
    let text = std::fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
    let process = Process {
        folder: std::fs::read_link(format!("/proc/{pid}/cwd"))?,
        program: text.split_terminator('\0').map(str::to_owned).collect(),
    };
    Ok((pid.to_owned(), process))
}

impl Process {
    fn start(&self, run: &Path) -> Result<()> {
        use std::os::unix::process::CommandExt;
        let log = std::fs::OpenOptions::new()
            .append(true)
            .open(run.join("kube-apiserver.log"))?;
        let child = Command::new(&self.program[0])
            .args(&self.program[1..])
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        let pid = child.id().to_string();
        let line = format!("{pid} {}\n", started(&pid).context("it ended")?);
        std::fs::write(run.join(PID), line)?;
        Ok(())
    }
}

#[test]
#[ignore = "restarts the API server that other tests use"]
fn an_api_server_that_is_restarted_is_held_and_then_right_again() -> Result<()> {
    let Some(run) = run_folder() else {
        return with_world(|_| async { Ok(()) });
    };
    with_world(|world| async move {
        let cluster = world.cluster("true", FOREVER)?;
        let made = cluster.create(&instance("web.1.0.1")).await?;
        verdict(&cluster, &made.name, "running", |v| *v == Verdict::Running).await?;

        let (pid, process) = api_server(&run)?;
        ensure!(Command::new("kill").arg(&pid).status()?.success());
        until("its end", || async {
            Ok(started(&pid).is_none().then_some(()))
        })
        .await?;
        let away = picture(&cluster, "away", |p| {
            matches!(p.state, ClusterState::Unreachable { .. })
        })
        .await;
        process.start(&run)?;
        let away = away?;
        ensure!(away.verdict(&made.name) == Some(Verdict::Running));

        picture(&cluster, "back", |p| p.state.is_reachable()).await?;
        let second = cluster.create(&instance("web.1.1.1")).await?;
        verdict(&cluster, &second.name, "running", |v| {
            *v == Verdict::Running
        })
        .await?;
        ensure!(cluster.picture().borrow().verdict(&made.name) == Some(Verdict::Running));
        Ok(())
    })
}
