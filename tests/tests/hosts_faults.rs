//! Machines that lose their power, under load and without their coordinator.

use anyhow::Result;
use berth_tests::{Cluster, Hosts, Load, Mode, Options, until};

const MODULE: &str = env!("CARGO_BIN_EXE_test-module");

#[test]
fn a_power_cut_costs_no_request_and_a_boot_needs_no_coordinator() -> Result<()> {
    Hosts::run(3, |hosts| async move {
        let mut options = Options::on_hosts();
        // A lost machine is to be replaced within the test; there is no fourth, so that takes its own return.
        options.coordinator = "heartbeat = \"1s\"\nnode_lease = \"10s\"\n".to_owned();
        let mut cluster = Cluster::start(options, MODULE).await?;
        hosts.join_all(&cluster, "").await?;
        cluster.deploy("web", Mode::Good, 3).await?;
        power_cut_under_load(&hosts, &cluster).await?;
        boots_without_coordinator(&hosts, &mut cluster).await
    })
}

/// No request that may be sent again fails, whatever was on its way when the power went.
async fn power_cut_under_load(hosts: &Hosts, cluster: &Cluster) -> Result<()> {
    let load = Load::start(&cluster.client, "web", 8, 1);
    load.pass(500).await?;
    hosts.cut(2)?;
    until("the machine to be lost", || async {
        let status = cluster.client.status().await?;
        Ok((status.nodes.get("lost") == Some(&1), status))
    })
    .await?;
    load.pass(200).await?;
    hosts.boot(2)?;
    cluster.wait_ready("web", 3).await?;
    load.pass(500).await?;
    let outcome = load.end().await?;
    eprintln!(
        "power cut under load: {} answered, {} failed, by {:?}",
        outcome.answered.len(),
        outcome.failed.len(),
        outcome.by_instance
    );
    outcome.assert_none_failed();
    Ok(())
}

/// What was desired runs again before anybody tells the machine so.
async fn boots_without_coordinator(hosts: &Hosts, cluster: &mut Cluster) -> Result<()> {
    let before = cluster.runs("web").await?;
    cluster.coordinator.kill();
    // One loses its power, and one is rebooted in order.
    hosts.each(|host| match host {
        1 => hosts.cut(host).and_then(|()| hosts.boot(host)),
        2 => hosts.off(host).and_then(|()| hosts.boot(host)),
        _ => Ok(()),
    })?;
    for host in [1, 2] {
        until("the instance to run again, with nobody to ask", || async {
            let runs = hosts.succeeds(host, "readlink /proc/[0-9]*/exe | grep -q test-module");
            Ok((runs, "not yet"))
        })
        .await?;
    }
    // The gateway serves by its last table, and finds it again there.
    let load = Load::start(&cluster.client, "web", 4, 1_000_000);
    load.pass(200).await?;
    load.end().await?.assert_none_failed();
    cluster.coordinator.restart()?;
    cluster.wait_ready("web", 3).await?;
    let ids = |runs: &[(String, u32, Option<u32>)]| -> Vec<String> {
        runs.iter().map(|(id, ..)| id.clone()).collect()
    };
    let after = cluster.runs("web").await?;
    assert_eq!(ids(&after), ids(&before), "an instance was replaced");
    Ok(())
}
