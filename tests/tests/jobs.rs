//! Jobs with the real programs: shards, retries, failures, deletion, and the death of everybody in turn.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use berth_model::api::{JobStatus, JobView, ShardState};
use berth_tests::{Cluster, Mode, Options, pids_with, stage, until};

const MODULE: &str = env!("CARGO_BIN_EXE_test-module");

/// Turns its input to upper case; trips once, crashes or waits at a gate where its environment says so.
const TASK: &str = r#"#!/bin/sh
echo "task $BERTH_JOB_INDEX begins"
if [ -n "$CRASH" ]; then echo "no such column: score" >&2; exit 3; fi
if [ -n "$TRIP" ] && [ "$BERTH_JOB_INDEX" = 1 ] && [ ! -e "$TRIP" ]; then
    touch "$TRIP"; echo "tripped" >&2; exit 7
fi
if [ -n "$GATE" ]; then
    touch "$GATE.$BERTH_INSTANCE"
    while [ ! -e "$GATE" ]; do sleep 0.05; done
fi
if [ -n "$FOLDER" ]; then
    mkdir -p "$BERTH_JOB_OUTPUT/sub"
    for file in "$BERTH_JOB_INPUT"/*; do tr a-z A-Z < "$file" > "$BERTH_JOB_OUTPUT/sub/$(basename "$file")"; done
else
    tr a-z A-Z < "$BERTH_JOB_INPUT" > "$BERTH_JOB_OUTPUT"
fi
echo "task $BERTH_JOB_INDEX ends"
"#;

struct Jobs {
    cluster: Cluster,
}

/// Where tests and tasks leave each other files.
fn meeting(cluster: &Cluster) -> PathBuf {
    cluster.home().join("meeting")
}

impl Jobs {
    async fn start(options: Options) -> Result<Self> {
        let cluster = Cluster::start(options, MODULE).await?;
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::create_dir(meeting(&cluster))?;
        std::fs::set_permissions(meeting(&cluster), open)?;
        let dir = cluster.home().join("package");
        stage(&dir, MODULE.as_ref(), "upper", "1.0.0", Mode::Good)?;
        let task = dir.join("bin/task");
        std::fs::write(&task, TASK)?;
        std::fs::set_permissions(&task, std::fs::Permissions::from_mode(0o755))?;
        let manifest = dir.join("berth.toml");
        let text = std::fs::read_to_string(&manifest)?;
        std::fs::write(&manifest, text + "\n[job]\ncommand = [\"bin/task\"]\n")?;
        let jobs = Self { cluster };
        jobs.cli(&["model", "push", dir.to_str().context("UTF-8")?])?;
        Ok(jobs)
    }

    fn run(&self, args: &[&str]) -> Result<Output> {
        self.cluster.cli(args)
    }

    /// Runs the CLI, which must succeed; its standard output.
    fn cli(&self, args: &[&str]) -> Result<String> {
        let output = self.run(args)?;
        ensure!(output.status.success(), "{args:?}: {output:?}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// An input of so many different lines.
    fn input(&self, lines: usize) -> Result<(PathBuf, String)> {
        let text: String = (0..lines)
            .map(|n| format!("line {n} of the input\n"))
            .collect();
        let path = self.cluster.home().join("input.txt");
        std::fs::write(&path, &text)?;
        Ok((path, text.to_uppercase()))
    }

    /// A path that tasks may write, too, although they are other users.
    fn path(&self, name: &str) -> String {
        meeting(&self.cluster).join(name).display().to_string()
    }

    async fn job(&self, name: &str) -> Result<JobView> {
        let path = format!("/v1/jobs/{name}");
        let (status, text) = self
            .cluster
            .client
            .raw(reqwest::Method::GET, &path, None)
            .await?;
        ensure!(status.is_success(), "{status}: {text}");
        Ok(serde_json::from_str(&text)?)
    }

    async fn until(&self, what: &str, name: &str, holds: impl Fn(&JobView) -> bool) -> Result<()> {
        until(what, || async {
            let view = self.job(name).await?;
            Ok((holds(&view), view))
        })
        .await
    }

    /// Starts a job of two shards that waits at a gate, and waits until both of its tasks are there.
    async fn at_the_gate(&self, name: &str) -> Result<(String, String)> {
        let (input, wanted) = self.input(40)?;
        let gate = self.path("gate");
        let input = input.display().to_string();
        let env = format!("GATE={gate}");
        self.cli(&[
            "job",
            "run",
            "upper",
            "--name",
            name,
            "--input",
            &input,
            "--completions",
            "2",
            "--env",
            &env,
        ])?;
        until("both tasks to wait at the gate", || async {
            let there =
                (0..2).all(|n| std::fs::exists(format!("{gate}.{name}.1.{n}.1")).unwrap_or(false));
            Ok((there, self.job(name).await?))
        })
        .await?;
        Ok((gate, wanted))
    }

    async fn events(&self, kind: &str) -> Result<Vec<String>> {
        let events = self.cluster.client.events().await?;
        let found = events.into_iter().filter(|e| e.kind == kind);
        Ok(found.map(|e| e.message).collect())
    }

    fn count_lines(&self, name: &str, text: &str) -> Result<usize> {
        let logs = self.cli(&["job", "logs", name])?;
        Ok(logs.lines().filter(|line| line.contains(text)).count())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_shards_over_two_nodes_come_out_in_order_though_one_trips() -> Result<()> {
    let jobs = Jobs::start(Options::nodes(2)).await?;
    let (input, wanted) = jobs.input(100)?;
    let input = input.display().to_string();
    let trip = format!("TRIP={}", jobs.path("trip"));
    let run = jobs.run(&[
        "job",
        "run",
        "upper",
        "--input",
        &input,
        "--completions",
        "4",
        "--env",
        &trip,
        "--follow",
    ])?;
    let told = String::from_utf8(run.stderr)?;
    ensure!(run.status.success(), "{told}");
    assert_eq!(String::from_utf8(run.stdout)?, wanted, "{told}");
    for n in 0..4 {
        assert!(told.contains(&format!("| task {n} ends")), "{told}");
    }
    assert!(told.contains("| tripped"), "{told}");
    let view = jobs.job("upper-1").await?;
    assert_eq!(
        (view.state, view.done, view.failed),
        (JobStatus::Succeeded, 4, 1)
    );
    assert_eq!(view.shards[1].attempts, 2);
    assert_eq!(view.failures[0].task.to_string(), "upper-1.1.1.1");
    assert!(
        view.failures[0]
            .last_lines
            .iter()
            .any(|l| l.contains("tripped")),
        "{view:#?}"
    );
    let placed = jobs.events("instance-created").await?;
    for node in ["node-1", "node-2"] {
        assert!(placed.iter().any(|m| m.ends_with(node)), "{placed:?}");
    }
    // After the end: every line once, the output as files, the list.
    assert_eq!(jobs.count_lines("upper-1", " begins")?, 5);
    assert_eq!(jobs.count_lines("upper-1", " ends")?, 4);
    let out = jobs.path("out");
    jobs.cli(&["job", "output", "upper-1", "-o", &out])?;
    let parts: Vec<String> = (0..4)
        .map(|n| std::fs::read_to_string(format!("{out}/part-{n:05}")))
        .collect::<std::io::Result<_>>()?;
    assert_eq!(parts.concat(), wanted);
    assert!(jobs.cli(&["job", "list"])?.contains("succeeded"));
    assert!(
        jobs.cli(&["job", "show", "upper-1"])?
            .contains("job exited with code 7")
    );

    let deleted = jobs.cli(&["job", "delete", "upper-1"])?;
    assert!(
        deleted.contains("0 tasks stopped, 4 outputs and its logs removed"),
        "{deleted}"
    );
    for gone in [["job", "show", "upper-1"], ["job", "logs", "upper-1"]] {
        assert_eq!(jobs.run(&gone)?.status.code(), Some(1), "{gone:?}");
    }
    folders(&jobs).await
}

async fn folders(jobs: &Jobs) -> Result<()> {
    let dir = jobs.cluster.home().join("files");
    std::fs::create_dir(&dir)?;
    for name in ["a", "b", "c"] {
        std::fs::write(dir.join(name), name.repeat(10))?;
    }
    let dir = dir.display().to_string();
    jobs.cli(&[
        "job",
        "run",
        "upper",
        "--name",
        "folders",
        "--input",
        &dir,
        "--completions",
        "5",
        "--env",
        "FOLDER=1",
        "--follow",
    ])?;
    let view = jobs.job("folders").await?;
    assert_eq!((view.completions, view.done), (3, 3));
    assert!(
        view.note.as_deref().is_some_and(|n| n.contains("3 shards")),
        "{view:#?}"
    );
    let out = jobs.path("folders-out");
    jobs.cli(&["job", "output", "folders", "-o", &out])?;
    let file = |part: usize, name: &str| {
        std::fs::read_to_string(format!("{out}/part-{part:05}/sub/{name}"))
    };
    assert_eq!(file(0, "a")?, "A".repeat(10));
    assert_eq!(file(2, "c")?, "C".repeat(10));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_fails_says_why_and_one_that_is_deleted_leaves_nothing() -> Result<()> {
    let jobs = Jobs::start(Options::nodes(2)).await?;
    let (input, _) = jobs.input(10)?;
    let input = input.display().to_string();
    let run = jobs.run(&[
        "job",
        "run",
        "upper",
        "--name",
        "broken",
        "--input",
        &input,
        "--retries",
        "1",
        "--env",
        "CRASH=1",
        "--follow",
    ])?;
    let told = String::from_utf8(run.stderr)?;
    assert_eq!(run.status.code(), Some(1), "{told}");
    assert!(run.stdout.is_empty());
    assert!(
        told.contains("error: job broken failed: job exited with code 3"),
        "{told}"
    );
    assert!(told.contains("  | no such column: score"), "{told}");
    let view = jobs.job("broken").await?;
    assert_eq!((view.failed, view.shards[0].attempts), (2, 2));
    assert_eq!(jobs.count_lines("broken", "no such column")?, 2);
    assert_eq!(jobs.events("job-failed").await?.len(), 1);

    jobs.at_the_gate("waits").await?;
    assert!(!pids_with("BERTH_INSTANCE=waits.1.").is_empty());
    let deleted = jobs.cli(&["job", "delete", "waits"])?;
    assert!(
        deleted.contains("waits is gone: 2 tasks stopped"),
        "{deleted}"
    );
    assert_eq!(jobs.run(&["job", "show", "waits"])?.status.code(), Some(1));
    until("no process of it to be left", || async {
        let left = pids_with("BERTH_INSTANCE=waits.1.");
        Ok((left.is_empty(), left))
    })
    .await?;

    let run = jobs.run(&[
        "job",
        "run",
        "upper",
        "--name",
        "late",
        "--input",
        &input,
        "--deadline",
        "1s",
        "--env",
        &format!("GATE={}", jobs.path("never")),
        "--follow",
    ])?;
    let told = String::from_utf8(run.stderr)?;
    assert_eq!(run.status.code(), Some(1), "{told}");
    assert!(told.contains("deadline"), "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_a_coordinators_nor_an_agents_death_loses_or_doubles_a_job() -> Result<()> {
    let mut jobs = Jobs::start(Options::nodes(2)).await?;
    let (gate, wanted) = jobs.at_the_gate("steady").await?;
    jobs.cluster.agents[0].kill();
    jobs.cluster.coordinator.kill();
    // The tasks end while nobody is there to hear of it.
    std::fs::write(&gate, "")?;
    until("the tasks' processes to end", || async {
        let left = pids_with("BERTH_JOB_INDEX=");
        Ok((!left.iter().any(|pid| is_of(*pid, &jobs)), left))
    })
    .await?;
    jobs.cluster.coordinator.restart()?;
    jobs.cluster.agents[0].restart()?;
    jobs.cluster.wait_connected().await?;
    jobs.until("the job to succeed", "steady", |v| {
        v.state == JobStatus::Succeeded
    })
    .await?;
    let view = jobs.job("steady").await?;
    assert_eq!(view.failed, 0);
    assert!(view.shards.iter().all(|s| s.attempts == 1), "{view:#?}");
    assert_eq!(jobs.cli(&["job", "output", "steady"])?, wanted);
    until("every line to be there", || async {
        let ends = jobs.count_lines("steady", " ends")?;
        Ok((ends == 2, ends))
    })
    .await?;
    assert_eq!(jobs.count_lines("steady", " begins")?, 2);
    Ok(())
}

fn is_of(pid: u32, jobs: &Jobs) -> bool {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    String::from_utf8_lossy(&environment).contains(&jobs.path("gate"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_nodes_shard_is_done_elsewhere_and_its_late_output_refused() -> Result<()> {
    let options = Options {
        coordinator: "node_lease = \"4s\"\nheartbeat = \"500ms\"\n".to_owned(),
        ..Options::nodes(4)
    };
    let mut jobs = Jobs::start(options).await?;
    let (gate, wanted) = jobs.at_the_gate("moved").await?;
    let view = jobs.job("moved").await?;
    let task = view.shards[0].task.as_ref().context("no task")?;
    let node = task.node.to_string();
    let i: usize = node.trim_start_matches("node-").parse::<usize>()? - 1;
    jobs.cluster.agents[i].kill();
    jobs.until("a second attempt elsewhere", "moved", |v| {
        let task = v.shards[0].task.as_ref();
        task.is_some_and(|t| t.status.id.attempt == 2 && t.node.to_string() != node)
    })
    .await?;
    // The first attempt ends well on the node that was given up; so does the second.
    std::fs::write(&gate, "")?;
    jobs.until("the job to succeed", "moved", |v| {
        v.state == JobStatus::Succeeded
    })
    .await?;
    jobs.cluster.agents[i].restart()?;
    jobs.cluster.wait_connected().await?;
    until("the first attempt to be let go of", || async {
        let (_, node) = jobs
            .cluster
            .client
            .raw(reqwest::Method::GET, &format!("/v1/nodes/{node}"), None)
            .await?;
        Ok((!node.contains("moved.1.0.1"), node))
    })
    .await?;
    let view = jobs.job("moved").await?;
    assert_eq!(
        (view.failed, view.done),
        (0, 2),
        "a lost node is no failure"
    );
    assert!(view.shards.iter().all(|s| s.state == ShardState::Done));
    assert_eq!(jobs.cli(&["job", "output", "moved"])?, wanted);
    let done = jobs.events("task-completed").await?;
    assert_eq!(done.len(), 2, "{done:?}");
    assert!(
        done.iter().any(|m| m.starts_with("moved.1.0.2 ")),
        "{done:?}"
    );
    Ok(())
}
