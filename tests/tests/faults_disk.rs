//! A full disk of the coordinator and the gateway, a real one: nothing that was acknowledged is lost, and all goes on by
//! itself when there is room.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use berth_tests::{Cluster, Load, Mode, Options, skip, until};
use reqwest::{Method, StatusCode};

const MODULE: &str = env!("CARGO_BIN_EXE_test-module");

/// Writes until nothing more fits.
fn fill(path: &Path) -> Result<()> {
    let mut file = std::fs::File::create(path)?;
    for length in [1 << 16, 4096, 1] {
        let block = vec![0; length];
        while file.write_all(&block).is_ok() {}
    }
    Ok(())
}

/// Changes a service until the disk is full; how many replicas were acknowledged last, and the refusal.
async fn change_until_refused(cluster: &Cluster) -> Result<(u32, String)> {
    let mut last = cluster.client.service("idle").await?.replicas;
    for round in 0..20_000 {
        let wanted = 2 + round % 7;
        match cluster.client.scale("idle", wanted).await {
            Ok(view) => last = view.replicas,
            Err(refused) => return Ok((last, format!("{refused:#}"))),
        }
    }
    anyhow::bail!("a full disk takes everything")
}

async fn ready(cluster: &Cluster, wanted: StatusCode) -> Result<()> {
    until("the coordinator's readiness", || async {
        let (status, text) = cluster.client.raw(Method::GET, "/readyz", None).await?;
        Ok((status == wanted, (status, text)))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn needs_root_a_full_disk_loses_nothing_acknowledged_and_heals_by_itself() -> Result<()> {
    let options = Options {
        small_disks: Some(24 << 20),
        ..Options::nodes(1)
    };
    let mut cluster = match Cluster::start(options, MODULE).await {
        Err(error) if format!("{error:#}").contains("mount") => {
            return skip("small-disk", "a file system cannot be mounted here");
        }
        other => other?,
    };
    cluster.deploy("echo", Mode::Good, 1).await?;
    // Its instances find no node: it is only changed.
    cluster.push("idle", "1.0.0", Mode::Good)?;
    cluster.client.deploy("idle", Some(2)).await?;
    let runs = cluster.runs("echo").await?;
    let load = Load::start(&cluster.client, "echo", 2, 1_000);
    load.pass(50).await?;
    let ballasts = ["coordinator", "gateway"].map(|name| cluster.home().join(name).join("ballast"));
    for by_itself in [true, false] {
        for ballast in &ballasts {
            fill(ballast)?;
        }
        let (mut acknowledged, refusal) = change_until_refused(&cluster).await?;
        assert!(
            refusal.contains("503") && refusal.contains("disk"),
            "{refusal}"
        );
        assert!(refusal.contains("not made"), "{refusal}");
        ready(&cluster, StatusCode::SERVICE_UNAVAILABLE).await?;
        let status = cluster.client.status().await?;
        let told = |p: &berth_model::api::StatusProblem| {
            p.subject == "coordinator" && p.message.contains("full")
        };
        assert!(status.problems.iter().any(told), "{:?}", status.problems);
        let push = cluster.push(
            "more",
            if by_itself { "1.0.0" } else { "2.0.0" },
            Mode::Good,
        );
        let push = format!("{:#}", push.expect_err("there is no room for it"));
        assert!(push.contains("full"), "{push}");
        // What was acknowledged is what is there, however the process ends.
        assert_eq!(cluster.client.service("idle").await?.replicas, acknowledged);
        load.pass(50).await?;
        if !by_itself {
            // One that begins on a full disk has all that was acknowledged, and goes on as the last did.
            cluster.coordinator.kill();
            fill(&cluster.home().join("coordinator/more"))?;
            cluster.coordinator.restart()?;
            cluster.wait_connected().await?;
            let kept = cluster.client.service("idle").await?.replicas;
            assert_eq!(kept, acknowledged);
            (acknowledged, _) = change_until_refused(&cluster).await?;
            load.pass(50).await?;
            cluster.coordinator.kill();
        }
        for ballast in &ballasts {
            std::fs::remove_file(ballast)?;
        }
        let _ = std::fs::remove_file(cluster.home().join("coordinator/more"));
        if !by_itself {
            cluster.coordinator.restart()?;
            cluster.wait_connected().await?;
        }
        ready(&cluster, StatusCode::OK).await?;
        assert_eq!(cluster.client.service("idle").await?.replicas, acknowledged);
        load.pass(50).await?;
        cluster.client.scale("idle", 1).await?;
    }
    let outcome = load.end().await?;
    outcome.assert_none_failed();
    assert_eq!(cluster.runs("echo").await?, runs);
    // Lines that came while there was no room are there, too, and none is there twice.
    cluster.assert_lines("echo", &outcome).await
}
