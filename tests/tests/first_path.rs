//! The first path: push, deploy, predict, read the logs, by the CLI.

use anyhow::Result;
use berth_tests::{Cluster, Mode, Options, until};

const MODULE: &str = env!("CARGO_BIN_EXE_test-module");

fn stdout(output: &std::process::Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn push_deploy_predict_and_read_the_logs() -> Result<()> {
    let cluster = Cluster::start(Options::nodes(2), MODULE).await?;
    cluster.push("echo", "1.0.0", Mode::Good)?;
    let deployed = cluster.cli(&["deploy", "echo", "--replicas", "2", "--wait"])?;
    stdout(&deployed);
    assert_eq!(cluster.client.service("echo").await?.ready, 2);

    cluster.wait_serving("echo").await?;
    let answered = cluster.cli(&[
        "predict",
        "echo",
        "-d",
        "{\"instances\":[1],\"request\":77}",
    ])?;
    assert!(stdout(&answered).contains("\"request\":77") || stdout(&answered).contains("77"));

    until("the request's line in the logs", || async {
        let logs = cluster.cli(&["logs", "echo"])?;
        let text = String::from_utf8_lossy(&logs.stdout).into_owned();
        Ok((
            text.contains("request 77") && text.contains("listening on"),
            text,
        ))
    })
    .await?;
    let nodes = stdout(&cluster.cli(&["node", "list"])?);
    assert!(
        nodes.contains("node-1") && nodes.contains("node-2"),
        "{nodes}"
    );
    let status = stdout(&cluster.cli(&["status"])?);
    assert!(
        status.contains("echo") || status.contains("ready"),
        "{status}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushing_again_changes_nothing_and_another_package_of_the_same_version_is_refused()
-> Result<()> {
    let cluster = Cluster::start(Options::nodes(0), MODULE).await?;
    cluster.push("echo", "1.0.0", Mode::Good)?;
    cluster.push("echo", "1.0.0", Mode::Good)?;
    let refused = cluster
        .push("echo", "1.0.0", Mode::Exit)
        .expect_err("another digest");
    let text = format!("{refused:#}");
    assert!(
        text.contains("1.0.0") && text.contains("never changes"),
        "{text}"
    );
    Ok(())
}
