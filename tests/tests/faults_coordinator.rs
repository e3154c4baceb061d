//! What a coordinator's death costs: nothing that it acknowledged, and no traffic.

use anyhow::Result;
use berth_tests::{Cluster, Load, Mode, Options, until};
use rand::Rng;
use std::collections::BTreeMap;
use std::time::Duration;

const MODULE: &str = env!("CARGO_BIN_EXE_test-module");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_coordinator_fails_no_request_and_restarts_nothing() -> Result<()> {
    let mut cluster = Cluster::start(Options::nodes(2), MODULE).await?;
    cluster.deploy("echo", Mode::Good, 2).await?;
    let before = cluster.runs("echo").await?;
    let load = Load::start(&cluster.client, "echo", 3, 1_000);
    for _ in 0..3 {
        load.pass(50).await?;
        cluster.coordinator.kill();
        load.pass(50).await?;
        cluster.coordinator.restart()?;
        cluster.wait_connected().await?;
    }
    let outcome = load.end().await?;
    outcome.assert_none_failed();
    cluster.wait_ready("echo", 2).await?;
    assert_eq!(cluster.runs("echo").await?, before);
    cluster.assert_lines("echo", &outcome).await
}

/// A backup that knows less than what runs: nothing is restarted, and the agents take orders again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restoring_an_older_backup_restarts_nothing() -> Result<()> {
    let mut cluster = Cluster::start(Options::nodes(3), MODULE).await?;
    cluster.deploy("echo", Mode::Good, 2).await?;
    let file = cluster.home().join("backup.db");
    cluster.coordinator_task("backup", &file)?;
    // Later than the backup: more orders, which the restored coordinator's must still come after.
    cluster.client.scale("echo", 3).await?;
    cluster.wait_ready("echo", 3).await?;
    cluster.client.scale("echo", 2).await?;
    cluster.wait_ready("echo", 2).await?;
    let before = cluster.runs("echo").await?;
    let load = Load::start(&cluster.client, "echo", 2, 1_000);
    load.pass(30).await?;
    cluster.coordinator.kill();
    cluster.coordinator_task("restore", &file)?;
    cluster.coordinator.restart()?;
    cluster.wait_connected().await?;
    cluster.wait_ready("echo", 2).await?;
    load.pass(30).await?;
    load.end().await?.assert_none_failed();
    assert_eq!(cluster.runs("echo").await?, before);
    cluster.client.scale("echo", 3).await?;
    cluster.wait_ready("echo", 3).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_away_longer_than_the_lease_replaces_nothing() -> Result<()> {
    let options = Options {
        // Longer than a busy machine may keep an agent from running: that would be a loss as well.
        coordinator: "node_lease = \"6s\"\nheartbeat = \"500ms\"\n".to_owned(),
        ..Options::nodes(3)
    };
    let mut cluster = Cluster::start(options, MODULE).await?;
    cluster.deploy("echo", Mode::Good, 2).await?;
    let before = cluster.runs("echo").await?;
    cluster.coordinator.kill();
    // The time away is what is tested; nothing is waited for.
    tokio::time::sleep(Duration::from_secs(8)).await;
    cluster.coordinator.restart()?;
    cluster.wait_connected().await?;
    cluster.wait_ready("echo", 2).await?;
    assert_eq!(cluster.runs("echo").await?, before);
    let events = cluster.client.events().await?;
    assert!(!events.iter().any(|e| e.kind == "node-lost"), "{events:#?}");
    Ok(())
}

/// Thirty times: change something, kill the coordinator at a random moment of it, start it again.
/// Whatever was acknowledged must hold in the end, and nothing else may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_kills_at_random_moments_converge_to_what_was_acknowledged() -> Result<()> {
    let mut cluster = Cluster::start(Options::nodes(3), MODULE).await?;
    for version in ["1.0.0", "2.0.0"] {
        cluster.push("echo", version, Mode::Good)?;
    }
    // Per service: the replicas it may have, the last acknowledged first. A change that was cut off
    // may or may not have happened; None is "deleted".
    let mut acknowledged: BTreeMap<String, Vec<Option<u32>>> = BTreeMap::new();
    for round in 0..30_u32 {
        let wait = Duration::from_millis(rand::rng().random_range(0..120));
        let (service, wanted, result) = {
            let client = cluster.client.clone();
            let change = tokio::spawn(async move { change(&client, round).await });
            tokio::time::sleep(wait).await;
            cluster.coordinator.kill();
            change.await?
        };
        let may = acknowledged.entry(service).or_insert_with(|| vec![None]);
        if result.is_ok() {
            *may = vec![wanted];
        } else {
            may.push(wanted);
        }
        cluster.coordinator.restart()?;
        cluster.wait_connected().await?;
    }
    let client = &cluster.client;
    until("the services to be what was acknowledged", || async {
        let services = client.services().await?;
        let fits = acknowledged.iter().all(|(name, may)| {
            let is = services.iter().find(|s| s.name.as_str() == name);
            let settled = is.is_none_or(|s| {
                s.ready == s.replicas.min(3) && s.instances.len() == s.ready as usize
            });
            settled && may.contains(&is.map(|s| s.replicas))
        });
        Ok((fits, (services, &acknowledged)))
    })
    .await?;
    Ok(())
}

/// One of deploy, deploy of another version, scale, delete; what it would make true.
async fn change(client: &berth_tests::Client, round: u32) -> (String, Option<u32>, Result<()>) {
    let service = "echo".to_owned();
    match round % 5 {
        0 => {
            let done = client.deploy("echo@1.0.0", Some(2)).await;
            (service, Some(2), done.map(|_| ()))
        }
        1 => (
            service.clone(),
            Some(1),
            client.scale(&service, 1).await.map(|_| ()),
        ),
        2 => {
            let done = client.deploy("echo@2.0.0", Some(2)).await;
            (service, Some(2), done.map(|_| ()))
        }
        3 => (
            service.clone(),
            Some(3),
            client.scale(&service, 3).await.map(|_| ()),
        ),
        _ => (
            service.clone(),
            None,
            client.delete(&service).await.map(|_| ()),
        ),
    }
}
