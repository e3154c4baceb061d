//! A gateway serves from its table on disk, whoever else is there.

use std::time::Instant;

use anyhow::Result;
use berth_tests::{Cluster, Mode, Options, until};

const MODULE: &str = env!("CARGO_BIN_EXE_test-module");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_gateway_serves_again_also_without_the_coordinator() -> Result<()> {
    let mut cluster = Cluster::start(Options::nodes(2), MODULE).await?;
    cluster.deploy("echo", Mode::Good, 2).await?;
    for coordinator_too in [false, true] {
        if coordinator_too {
            cluster.coordinator.kill();
        }
        cluster.gateway.kill();
        let began = Instant::now();
        cluster.restart_gateway().await?;
        cluster.wait_serving("echo").await?;
        // "Within a second" is reported, not asserted: the machine is shared. `wait_serving` has its limit.
        eprintln!(
            "serving again after {:?}, coordinator down: {coordinator_too}",
            began.elapsed()
        );
    }
    cluster.coordinator.restart()?;
    cluster.wait_connected().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateways_own_errors_are_json_with_their_header() -> Result<()> {
    let cluster = Cluster::start(Options::nodes(0), MODULE).await?;
    // Until its first table has come it says that it has none.
    until("an unknown service to be not found", || async {
        let answer = cluster.client.predict("nothing", 1).await?;
        let json = answer.2.starts_with("{\"error\":") || answer.2.starts_with("{ \"error\":");
        Ok((answer.0.as_u16() == 404 && json, answer))
    })
    .await?;
    cluster.push("echo", "1.0.0", Mode::Good)?;
    cluster.client.deploy("echo", Some(1)).await?;
    until("the service to be known without an instance", || async {
        let answer = cluster.client.predict("echo", 1).await?;
        Ok((
            answer.0.as_u16() == 503 && answer.2.contains("no node"),
            answer,
        ))
    })
    .await?;
    Ok(())
}
