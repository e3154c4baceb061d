//! Jobs in containers, with a real daemon: outputs, a folder of them, and what is said when memory runs out.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use berth_tests::{Backend, Cluster, Options, docker_node, example, output_of, platform, until};

const MODULE: &str = env!("CARGO_BIN_EXE_test-module");

/// A cluster with Docker; none if that is not to be tested.
async fn start(nodes: usize) -> Result<Option<Cluster>> {
    if !Backend::Docker.wanted()? {
        return Ok(None);
    }
    let mut options = Options::nodes(nodes);
    options.agent = docker_node()?;
    Ok(Some(Cluster::start(options, MODULE).await?))
}

/// A package whose `[job] command` is a Python script.
fn script(home: &Path, name: &str, more: &str, script: &str) -> Result<PathBuf> {
    let dir = home.join(name);
    std::fs::create_dir_all(dir.join("model"))?;
    std::fs::write(dir.join("model/weights"), "1\n")?;
    std::fs::write(dir.join("task.py"), script)?;
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"1.0.0\"\n[model]\npath = \"model\"\n[module]\nkind = \"custom\"\n\
         command = [\"python3\", \"task.py\"]\n[job]\ncommand = [\"python3\", \"task.py\"]\n{more}"
    );
    std::fs::write(dir.join("berth.toml"), manifest)?;
    Ok(dir)
}

/// Writes a folder: its input in capitals, who and where it is.
const CAPITALS: &str = r#"
import os, pathlib
out = pathlib.Path(os.environ["BERTH_JOB_OUTPUT"])
out.mkdir()
given = pathlib.Path(os.environ["BERTH_JOB_INPUT"]).read_text()
(out / "capitals.txt").write_text(given.upper())
(out / "who.txt").write_text(f"{os.getuid()} {os.getcwd()}")
print("scored", len(given.splitlines()), "lines")
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_in_containers_leave_their_folders() -> Result<()> {
    let Some(cluster) = start(2).await? else {
        return Ok(());
    };
    cluster.push_folder(&script(cluster.home(), "capitals", "", CAPITALS)?)?;
    let input = cluster.home().join("words.txt");
    let words: String = (0..50).map(|n| format!("word {n}\n")).collect();
    std::fs::write(&input, &words)?;
    let job = [
        "job",
        "run",
        "capitals",
        "--name",
        "caps",
        "--runtime",
        "docker",
    ];
    let input = input.to_string_lossy().into_owned();
    let more = ["--input", &input, "--completions", "2", "--follow"];
    let ran = cluster.cli(&[&job[..], &more].concat())?;
    let told = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{told}");
    assert_eq!(told.matches("| scored ").count(), 2, "{told}");
    let out = cluster.home().join("out");
    cluster.cli_text(&["job", "output", "caps", "-o", &out.to_string_lossy()])?;
    let mut found = Vec::new();
    let mut folders: Vec<_> = std::fs::read_dir(&out)?
        .flatten()
        .map(|e| e.path())
        .collect();
    folders.sort();
    for folder in folders {
        found.push(std::fs::read_to_string(folder.join("capitals.txt"))?);
        let who = std::fs::read_to_string(folder.join("who.txt"))?;
        assert!(
            who.ends_with(" /berth/package") && !who.starts_with("0 "),
            "{who}"
        );
    }
    assert_eq!(found.concat(), words.to_uppercase());
    no_containers_left(&cluster, 2).await
}

/// Waits until none of the nodes' containers is there, running or not.
async fn no_containers_left(cluster: &Cluster, nodes: usize) -> Result<()> {
    until("no container to be left", || async {
        let left = containers(cluster, nodes)?;
        Ok((left.is_empty(), left))
    })
    .await
}

fn containers(cluster: &Cluster, nodes: usize) -> Result<String> {
    let host = platform("docker.sh", &["up"])?;
    let mut found = String::new();
    for node in 0..nodes {
        let ours = format!("label=io.berth.data={}", cluster.node_data(node).display());
        let mut docker = Command::new("docker");
        docker.args(["-H", &host, "ps", "--all", "--quiet", "--filter", &ours]);
        found.push_str(&output_of(&mut docker)?);
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_instances_were_stopped_has_no_containers() -> Result<()> {
    let Some(mut cluster) = start(1).await? else {
        return Ok(());
    };
    cluster.push_folder(&example(cluster.home(), "batch")?)?;
    let deploy = ["deploy", "domain-scores", "--runtime", "docker", "--wait"];
    cluster.cli_text(&deploy)?;
    assert_eq!(containers(&cluster, 1)?.lines().count(), 1);
    cluster.agents[0].kill();
    let told = cluster.stop_instances(0)?;
    assert!(
        told.contains("stopped 1 instances, 0 of them by force"),
        "{told}"
    );
    assert_eq!(containers(&cluster, 1)?, "");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_runs_out_of_memory_says_so_with_its_limit() -> Result<()> {
    let Some(cluster) = start(1).await? else {
        return Ok(());
    };
    let eater = "print('eating', flush=True)\nfood = []\nwhile True:\n    food.append(bytearray(1 << 20))\n";
    let more = "[resources]\nmemory = \"64MiB\"\n";
    cluster.push_folder(&script(cluster.home(), "eater", more, eater)?)?;
    let job = [
        "job",
        "run",
        "eater",
        "--name",
        "eats",
        "--runtime",
        "docker",
    ];
    let ran = cluster.cli(&[&job[..], &["--retries", "1", "--follow"]].concat())?;
    assert!(!ran.status.success());
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr)
    );
    let shown = cluster.cli_text(&["job", "show", "eats"])?;
    for text in [said, shown] {
        for words in ["out of memory: job was ended", "64MiB", "| eating"] {
            assert!(text.contains(words), "{words:?} is not in {text}");
        }
    }
    Ok(())
}
