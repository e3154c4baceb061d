//! What operators do with nodes while clients are served: cordon, drain, label, remove.

use std::process::Output;

use anyhow::{Context, Result};
use berth_model::api::NodeView;
use berth_tests::{Cluster, Load, Mode, Options, until};

const MODULE: &str = env!("CARGO_BIN_EXE_test-module");

async fn node(cluster: &Cluster, name: &str) -> Result<NodeView> {
    let nodes = cluster.client.nodes().await?;
    let found = nodes.into_iter().find(|n| n.name.as_str() == name);
    found.with_context(|| format!("there is no {name}"))
}

/// Where the instances of a service are, by ordinal.
async fn places(cluster: &Cluster, service: &str) -> Result<Vec<String>> {
    let view = cluster.client.service(service).await?;
    Ok(view.instances.iter().map(|i| i.node.to_string()).collect())
}

async fn until_drained(cluster: &Cluster, name: &str) -> Result<()> {
    until(&format!("{name} to be empty"), || async {
        let view = node(cluster, name).await?;
        let drained = view.drain.as_ref().is_some_and(|d| d.drained.is_some());
        Ok((drained && view.instances.is_empty(), view))
    })
    .await
}

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(&[out.as_slice(), err.as_slice()].concat()).into_owned()
}

/// Also when the coordinator is killed in the midst, at whatever moment that is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_under_load_fails_no_request_and_survives_the_coordinator() -> Result<()> {
    let mut cluster = Cluster::start(Options::nodes(3), MODULE).await?;
    cluster.deploy("echo", Mode::Good, 2).await?;
    let load = Load::start(&cluster.client, "echo", 3, 1_000);
    load.pass(30).await?;
    let first = places(&cluster, "echo").await?.remove(0);
    let told = cluster.cli_text(&["node", "drain", &first])?;
    assert!(told.contains("is drained: 1 moved"), "{told}");
    assert!(!places(&cluster, "echo").await?.contains(&first));
    let list = cluster.cli_text(&["node", "list"])?;
    assert!(list.contains("ready,drained"), "{list}");
    load.pass(30).await?;

    // The next one, with the first as its spare node. Asked for again, it goes on as it was.
    cluster.cli_text(&["node", "uncordon", &first])?;
    let second = places(&cluster, "echo").await?.remove(0);
    for pause in [true, false] {
        cluster.cli_text(&["node", "drain", &second, "--no-wait"])?;
        if pause {
            load.pass(5).await?;
        }
        cluster.coordinator.kill();
        load.pass(20).await?;
        cluster.coordinator.restart()?;
        cluster.wait_connected().await?;
    }
    until_drained(&cluster, &second).await?;
    cluster.wait_ready("echo", 2).await?;
    load.pass(30).await?;
    let outcome = load.end().await?;
    outcome.assert_none_failed();
    cluster.assert_lines("echo", &outcome).await?;

    // What is empty can be taken out; what is not is refused.
    cluster.cli_text(&["node", "remove", &second])?;
    let refused = cluster.cli(&["node", "remove", &first])?;
    assert!(!refused.status.success(), "{}", said(&refused));
    assert!(
        said(&refused).contains("berth node drain"),
        "{}",
        said(&refused)
    );
    cluster
        .agents
        .iter_mut()
        .for_each(berth_tests::Daemon::kill);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_spare_node_a_drain_waits_and_then_goes_as_far_as_it_may() -> Result<()> {
    let cluster = Cluster::start(Options::nodes(2), MODULE).await?;
    cluster.deploy("echo", Mode::Good, 2).await?;
    let load = Load::start(&cluster.client, "echo", 2, 1_000);
    let begun = cluster.cli_text(&["node", "drain", "node-1", "--no-wait"])?;
    assert!(begun.contains("0 of 1 moved"), "{begun}");
    until("the drain to say what it waits for", || async {
        let shown = cluster.cli_text(&["node", "show", "node-1"])?;
        Ok((shown.contains("no-spare-node: echo.1."), shown))
    })
    .await?;
    let status = cluster.cli_text(&["status"])?;
    assert!(
        status.contains("node/node-1") && status.contains("no-spare-node"),
        "{status}"
    );
    assert_eq!(cluster.client.service("echo").await?.ready, 2);

    // One of two may be missing, so the deadline empties the node.
    cluster.cli_text(&["node", "drain", "node-1", "--deadline", "1s"])?;
    load.pass(30).await?;
    load.end().await?.assert_none_failed();
    let kept = cluster.cli(&["node", "drain", "node-2", "--deadline", "0s"])?;
    assert_eq!(kept.status.code(), Some(1), "{}", said(&kept));
    assert!(
        said(&kept).contains("max_unavailable (1)"),
        "{}",
        said(&kept)
    );
    assert!(cluster.client.predict("echo", 1).await?.0.is_success());
    cluster.cli_text(&["node", "drain", "node-2", "--force"])?;
    assert_eq!(cluster.client.service("echo").await?.ready, 0);

    cluster.cli_text(&["node", "uncordon", "node-1"])?;
    cluster.wait_serving("echo").await?;
    let view = node(&cluster, "node-1").await?;
    assert!(!view.cordoned && view.drain.is_none(), "{view:#?}");
    Ok(())
}

/// Both count for what is placed from then on, and move nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cordon_and_labels_count_for_what_is_placed_from_then_on() -> Result<()> {
    let cluster = Cluster::start(Options::nodes(3), MODULE).await?;
    cluster.cli_text(&["node", "label", "node-2", "pool=blue", "rack=7"])?;
    cluster.push("echo", "1.0.0", Mode::Good)?;
    cluster.cli_text(&["deploy", "echo", "--pool", "blue", "--wait"])?;
    assert_eq!(places(&cluster, "echo").await?, ["node-2"]);
    let before = cluster.runs("echo").await?;

    let told = cluster.cli_text(&["node", "label", "node-2", "pool-"])?;
    assert!(told.contains("rack=7") && !told.contains("pool"), "{told}");
    cluster.cli_text(&["node", "label", "node-3", "pool=blue"])?;
    cluster.cli_text(&["node", "cordon", "node-3"])?;
    cluster.client.scale("echo", 2).await?;
    until("the second instance to wait for the cordon", || async {
        let view = cluster.client.service("echo").await?;
        let said = view.reasons.iter().any(|r| r.contains("1 cordoned"));
        Ok((said && view.instances.len() == 1, view))
    })
    .await?;
    cluster.cli_text(&["node", "uncordon", "node-3"])?;
    cluster.wait_ready("echo", 2).await?;
    let mut now = places(&cluster, "echo").await?;
    now.sort();
    assert_eq!(now, ["node-2", "node-3"]);
    assert!(
        cluster.runs("echo").await?.contains(&before[0]),
        "it was moved"
    );

    // A cordon moves nothing either.
    cluster.cli_text(&["node", "cordon", "node-2"])?;
    let view = node(&cluster, "node-2").await?;
    assert!(view.cordoned && view.instances.len() == 1, "{view:#?}");
    let bad = cluster.cli(&["node", "label", "node-2", "a b=c"])?;
    assert_eq!(bad.status.code(), Some(1), "{}", said(&bad));
    Ok(())
}
