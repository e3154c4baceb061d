//! What README.md, docs/first-deploy.md and examples/fleet tell a newcomer to type, typed: `berth up` and the
//! commands after it, each as it stands there but for the ports.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use berth_tests::{PortSlice, bin, on_path, output_of, skip, tests_folder, until};
use tempfile::TempDir;

/// A newcomer: a home of their own, the programs on PATH. What `berth up` started ends with it.
struct Newcomer {
    home: TempDir,
    ports: PortSlice,
    gateway: String,
}

impl Newcomer {
    fn new() -> Result<Self> {
        Ok(Self {
            home: TempDir::with_prefix("berth-newcomer-")?,
            ports: PortSlice::take()?,
            gateway: String::new(),
        })
    }

    fn shell(&self, command: &str, folder: &Path) -> Result<Command> {
        let programs = bin("berth")?;
        let programs = programs.parent().context("a folder of programs")?;
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("sh");
        shell
            .args(["-c", command])
            .current_dir(folder)
            .env("HOME", self.home.path())
            .env("PATH", format!("{}:{path}", programs.display()));
        for name in [
            "XDG_CONFIG_HOME",
            "XDG_DATA_HOME",
            "BERTH_ENDPOINT",
            "BERTH_TOKEN",
            "BERTH_CA",
            "BERTH_CONTEXT",
        ] {
            shell.env_remove(name);
        }
        Ok(shell)
    }

    /// Types one line. Others use the usual ports at the same time, and nobody is there to end what follows.
    fn types_in(&mut self, line: &str, folder: &Path) -> Result<String> {
        let up = format!(
            "berth up --api-port 0 --gateway-port 0 --port-base {}",
            self.ports.of_node(0).0
        );
        let line = line
            .replace("berth up", &up)
            .replace("http://127.0.0.1:7480", &self.gateway)
            .replace(" -f   ", "   ");
        if line.contains("curl") && on_path("curl").is_none() {
            skip("newcomer-curl", "no curl on PATH")?;
            return Ok(String::new());
        }
        let text = output_of(&mut self.shell(&line, folder)?)?;
        if let Some(url) = text.lines().find_map(|l| l.strip_prefix("gateway ")) {
            self.gateway = url.trim().to_owned();
        }
        Ok(text)
    }

    fn types(&mut self, line: &str) -> Result<String> {
        let home = self.home.path().to_owned();
        self.types_in(line, &home)
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        let down = self.shell("berth down", self.home.path());
        let ended = down.and_then(|mut down| output_of(&mut down));
        if let Err(error) = ended {
            eprintln!("berth down: {error:#}");
        }
    }
}

fn page(path: &str) -> Result<String> {
    let path = root().join(path);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

fn root() -> PathBuf {
    tests_folder().join("..")
}

/// The lines of all `sh` blocks.
fn commands(text: &str) -> Vec<&str> {
    let blocks = text.split("```sh\n").skip(1);
    let blocks = blocks.filter_map(|block| block.split("```").next());
    let lines = blocks.flat_map(str::lines);
    lines.filter(|line| !line.trim().is_empty()).collect()
}

/// What stands between two headings.
fn between<'a>(text: &'a str, from: &str, to: &str) -> Result<&'a str> {
    let (_, rest) = text.split_once(from).context(from.to_owned())?;
    let (part, _) = rest.split_once(to).context(to.to_owned())?;
    Ok(part)
}

/// Whether `berth status` finds nothing wrong but, perhaps, how little room the machine's disk has.
fn is_well(status: &str) -> bool {
    let (problems, _) = status.split_once("\n\n").unwrap_or((status, ""));
    let mut problems = problems.lines();
    problems.all(|line| line == "All is well." || line.contains(": disk-low: "))
}

#[tokio::test]
async fn the_readmes_first_deploy_and_the_page_on_it_work_as_they_stand() -> Result<()> {
    let readme = page("README.md")?;
    let lines = commands(between(
        &readme,
        "## Deploy a package of your own",
        "## Install it on machines",
    )?);
    ensure!(lines.len() >= 9, "{lines:?}");
    let mut newcomer = Newcomer::new()?;
    let mut said = Vec::new();
    for line in lines.iter().filter(|line| !line.starts_with("export PATH")) {
        if line.starts_with("berth status") {
            until("all to be well", || {
                let text = newcomer.types(line);
                async move {
                    let text = text?;
                    Ok((is_well(&text), text))
                }
            })
            .await?;
        }
        said.push((*line, newcomer.types(line)?));
    }
    let of = |begin: &str| {
        let found = said.iter().find(|(line, _)| line.starts_with(begin));
        found.map_or("", |(_, text)| text.as_str())
    };
    ensure!(of("berth predict").contains("predictions"), "{said:?}");
    ensure!(of("berth deploy").contains("2 of 2 instances"), "{said:?}");
    ensure!(of("berth logs").lines().count() > 1, "{said:?}");
    ensure!(!of("berth status").is_empty(), "{said:?}");

    // The next `berth up` serves it again, and the page's own commands change nothing of it.
    let first = page("docs/first-deploy.md")?;
    let steps = between(&first, "## 1.", "## 6.")?;
    for line in commands(steps) {
        if line.starts_with("berth package init") {
            continue;
        }
        let text = newcomer.types(line)?;
        if line.starts_with("berth service show") {
            ensure!(text.starts_with("my-model  ready  2/2 ready"), "{text}");
            ensure!(text.contains("revision 1"), "{text}");
        }
    }
    Ok(())
}

#[test]
fn the_example_of_fleet_files_works_as_it_stands_and_up_brings_a_removed_node_back() -> Result<()> {
    let mut newcomer = Newcomer::new()?;
    newcomer.types("berth up --detach --nodes 2")?;
    let page = page("examples/fleet/README.md")?;
    let lines = commands(&page);
    ensure!(lines.len() >= 3, "{lines:?}");
    let mut said = Vec::new();
    for line in lines {
        said.push(newcomer.types_in(line, &root())?);
    }
    ensure!(said[0].contains("+ service/scores"), "{}", said[0]);
    ensure!(said[1].contains("scores is ready: 1 of 1"), "{}", said[1]);
    ensure!(
        said[1].contains("first-scores has succeeded: 2 of 2"),
        "{}",
        said[1]
    );
    ensure!(said[2].starts_with("Nothing to do:"), "{}", said[2]);

    // Its agent still runs, and is only refused: `up` sees that and has it join anew.
    newcomer.types("berth node remove node-2")?;
    newcomer.types("berth up --detach --nodes 2")?;
    let nodes = newcomer.types("berth node list")?;
    ensure!(nodes.contains("node-2  ready"), "{nodes}");
    Ok(())
}
