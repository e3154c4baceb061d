//! Changes under load: none of them fails a request.

use anyhow::Result;
use berth_tests::{Cluster, Load, Mode, Options, until};

const MODULE: &str = env!("CARGO_BIN_EXE_test-module");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaling_and_deploying_version_2_fail_no_request() -> Result<()> {
    for nodes in [2, 3] {
        let cluster = Cluster::start(Options::nodes(nodes), MODULE).await?;
        cluster.deploy("echo", Mode::Good, 2).await?;
        cluster.push("echo", "2.0.0", Mode::Good)?;
        let load = Load::start(&cluster.client, "echo", 3, 1_000);
        load.pass(50).await?;
        cluster.client.deploy("echo@2.0.0", None).await?;
        cluster.wait_ready("echo", 2).await?;
        load.pass(50).await?;
        cluster.client.scale("echo", 1).await?;
        cluster.wait_ready("echo", 1).await?;
        load.pass(50).await?;
        let outcome = load.end().await?;
        outcome.assert_none_failed();
        let of = |revision: &str| -> u64 {
            let prefix = format!("echo.{revision}.");
            outcome
                .by_instance
                .iter()
                .filter(|(id, _)| id.starts_with(&prefix))
                .map(|(_, n)| n)
                .sum()
        };
        assert!(of("1") > 0 && of("2") > 0, "{:?}", outcome.by_instance);
        let (_, instance, _) = cluster.client.predict("echo", 1).await?;
        assert!(instance.starts_with("echo.2."), "{instance}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_service_answers_until_it_is_gone_and_leaves_nothing() -> Result<()> {
    let cluster = Cluster::start(Options::nodes(2), MODULE).await?;
    cluster.deploy("echo", Mode::Good, 2).await?;
    let load = Load::start(&cluster.client, "echo", 3, 1_000);
    load.pass(50).await?;
    cluster.client.delete("echo").await?;
    until("the service to be gone", || async {
        let services = cluster.client.services().await?;
        Ok((services.is_empty(), services))
    })
    .await?;
    let outcome = load.end().await?;
    // From the moment of the delete the service is being taken away: what the gateway still takes must
    // be answered, what it no longer takes must be refused as such, never cut off.
    for failure in &outcome.failed {
        assert!(
            failure.contains("404") || failure.contains("503"),
            "{failure}"
        );
    }
    let home = cluster.home().to_string_lossy().into_owned();
    until("no process to be left", || async {
        let left = berth_tests::pids_with(&home);
        Ok((left.is_empty(), left))
    })
    .await?;
    // The same name again: never an identity that was used before.
    cluster.client.deploy("echo", Some(1)).await?;
    cluster.wait_ready("echo", 1).await?;
    let runs = cluster.runs("echo").await?;
    assert!(runs[0].0.starts_with("echo.2."), "{runs:?}");
    Ok(())
}
