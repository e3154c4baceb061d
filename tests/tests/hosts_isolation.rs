//! Modules on a host with systemd: each start a transient unit. The suite of the agent's runtimes runs there, too.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use berth_tests::hosts::{OTHER, SHARE, TEST};
use berth_tests::{Cluster, Hosts, Options, isolation, until};

#[test]
fn units_of_systemd_keep_modules_apart() -> Result<()> {
    Hosts::run(1, |hosts| async move {
        let fleet = fleet(&hosts).await;
        let suite = fleet.and_then(|()| conformance(&hosts));
        suite.with_context(|| hosts.journals())
    })
}

/// The unit tests of the agent, which were built beside this test.
fn agents_tests() -> Result<PathBuf> {
    let me = std::env::current_exe()?;
    let folder = me.parent().context("no folder")?;
    let mut found: Vec<(std::time::SystemTime, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if name.starts_with("berth_agent-") && path.extension().is_none() {
            found.push((path.metadata()?.modified()?, path));
        }
    }
    found.sort();
    let newest_first = found.into_iter().rev().map(|(_, path)| path);
    newest_first
        .into_iter()
        .find(|path| has_suite(path))
        .context("the agent's unit tests are not built: cargo test --no-run -p berth-agent --lib")
}

fn has_suite(path: &Path) -> bool {
    let listed = Command::new(path)
        .args(["--list", "isolation::systemd"])
        .output();
    listed
        .is_ok_and(|listed| String::from_utf8_lossy(&listed.stdout).contains("isolation::systemd"))
}

/// The suite of runtimes and of isolation, over systemd's launcher.
fn conformance(hosts: &Hosts) -> Result<()> {
    let listeners = [TEST, OTHER].map(|address| std::net::TcpListener::bind((address, 0)));
    let mut dial = Vec::new();
    for listener in &listeners {
        let listener = listener
            .as_ref()
            .map_err(|error| anyhow::anyhow!("cannot listen: {error}"))?;
        dial.push(listener.local_addr()?.to_string());
    }
    std::fs::copy(agents_tests()?, hosts.share().join("agent-tests"))?;
    let said = hosts.exec(
        1,
        &format!(
            "cp {SHARE}/agent-tests /opt/ && cd /opt && \
             BERTH_TEST_SYSTEMD=1 BERTH_TEST_DIAL={} BERTH_SHIM_BIN=/usr/lib/berth/berth-shim \
             ./agent-tests --test-threads 8 isolation::systemd packages::sandbox",
            dial.join(",")
        ),
    )?;
    // Under another name they would all be skipped.
    let ran = said.contains("test result: ok.") && !said.contains(" 0 passed");
    anyhow::ensure!(ran, "{said}");
    Ok(())
}

/// A node whose agent is a unit itself: what it runs is apart from it, and stays when it is killed.
async fn fleet(hosts: &Hosts) -> Result<()> {
    let cluster = Cluster::start(Options::on_hosts(), env!("CARGO_BIN_EXE_test-module")).await?;
    let more = "exclusive = false\n[isolation]\nlauncher = \"systemd\"\n";
    hosts.join_all(&cluster, more).await?;
    isolation::nothing_breaks_out(&cluster).await?;
    let units = hosts.exec(
        1,
        "systemctl list-units --plain --no-legend 'berth-instance-*'",
    )?;
    assert_eq!(
        units
            .lines()
            .filter(|line| line.contains(" running "))
            .count(),
        2,
        "{units}"
    );
    let node = cluster.cli_text(&["node", "show", "host1"])?;
    assert!(node.contains("isolation  systemd: "), "{node}");
    isolation::too_much_memory_is_told(&cluster).await?;

    // The agent is killed; its successor adopts what runs.
    let before = (
        cluster.runs("victim").await?,
        cluster.runs("intruder").await?,
    );
    hosts.exec(1, "systemctl kill -s KILL berth-agent")?;
    let adopted = "journalctl -b -u berth-agent -o cat | grep -c adopted";
    until("another agent to have adopted both", || async {
        let adopted = hosts.exec(1, adopted).unwrap_or_default();
        let ready = cluster.client.status().await?.nodes.get("ready").copied();
        Ok((adopted == "2" && ready == Some(1), (adopted, ready)))
    })
    .await?;
    assert_eq!(
        before,
        (
            cluster.runs("victim").await?,
            cluster.runs("intruder").await?
        )
    );
    // Nothing is left of what ended.
    cluster.client.delete("intruder").await?;
    until("its unit to be gone", || async {
        let gone = !hosts.succeeds(
            1,
            "systemctl list-units --all | grep -q berth-instance-intruder",
        );
        Ok((gone, "still there"))
    })
    .await
}
