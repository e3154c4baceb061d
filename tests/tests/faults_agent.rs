//! What an agent's or a node's death costs: nothing that was acknowledged.

use anyhow::{Context, Result};
use berth_tests::{Cluster, Load, Mode, Options, until};

const MODULE: &str = env!("CARGO_BIN_EXE_test-module");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_an_agent_loses_no_request_no_line_and_restarts_nothing() -> Result<()> {
    let mut cluster = Cluster::start(Options::nodes(2), MODULE).await?;
    cluster.deploy("echo", Mode::Good, 2).await?;
    let before = cluster.runs("echo").await?;
    let load = Load::start(&cluster.client, "echo", 3, 1_000);
    for round in 0..4 {
        load.pass(60).await?;
        let agent = &mut cluster.agents[round % 2];
        agent.kill();
        load.pass(60).await?;
        cluster.agents[round % 2].restart()?;
        cluster.wait_connected().await?;
    }
    let outcome = load.end().await?;
    outcome.assert_none_failed();
    assert_eq!(
        outcome.by_instance.len(),
        2,
        "both took part: {:?}",
        outcome.by_instance
    );
    assert_eq!(cluster.runs("echo").await?, before, "nothing was restarted");
    cluster.assert_lines("echo", &outcome).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_disappears_is_lost_after_its_lease_and_replaced() -> Result<()> {
    let options = Options {
        coordinator: "node_lease = \"4s\"\nheartbeat = \"500ms\"\n".to_owned(),
        ..Options::nodes(3)
    };
    let mut cluster = Cluster::start(options, MODULE).await?;
    cluster.deploy("echo", Mode::Good, 2).await?;
    let view = cluster.client.service("echo").await?;
    let gone = view.instances[0].node.to_string();
    let i: usize = gone.as_str().trim_start_matches("node-").parse::<usize>()? - 1;
    let old = view.instances[0].status.id.clone();
    cluster.agents[i].kill();
    until("a replacement elsewhere", || async {
        let view = cluster.client.service("echo").await?;
        let moved = view
            .instances
            .iter()
            .filter(|i| i.node.to_string() != gone)
            .count()
            == 2;
        Ok((moved && view.ready == 2, view))
    })
    .await?;
    let events = cluster.client.events().await?;
    assert!(
        events
            .iter()
            .any(|e| e.kind == "node-lost" && e.subject.contains(gone.as_str())),
        "{events:?}"
    );
    let status = cluster.client.status().await?;
    assert!(
        status
            .problems
            .iter()
            .any(|p| p.subject.contains(gone.as_str())),
        "{status:?}"
    );

    // Back again: the fenced instance stops, and the node is used again.
    cluster.agents[i].restart()?;
    until("the fenced instance to be gone", || async {
        let view = cluster.client.service("echo").await?;
        let left = view.instances.iter().any(|i| i.status.id == old);
        let processes = berth_tests::pids_with(&format!("BERTH_INSTANCE={old}"));
        let marked: Vec<u32> = processes
            .into_iter()
            .filter(|pid| {
                std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|env| {
                    String::from_utf8_lossy(&env).contains(&*cluster.home().to_string_lossy())
                })
            })
            .collect();
        Ok((!left && marked.is_empty(), (view, marked)))
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_node_without_room_elsewhere_is_said_so() -> Result<()> {
    let options = Options {
        coordinator: "node_lease = \"4s\"\nheartbeat = \"500ms\"\n".to_owned(),
        ..Options::nodes(2)
    };
    let mut cluster = Cluster::start(options, MODULE).await?;
    cluster.deploy("echo", Mode::Good, 2).await?;
    cluster.agents[0].kill();
    until("the status to say that there is no node", || async {
        let status = cluster.client.status().await?;
        let said = status
            .problems
            .iter()
            .any(|p| p.subject.contains("echo") && p.message.contains("no node"));
        Ok((said, status))
    })
    .await?;
    cluster.agents[0].restart()?;
    cluster.wait_ready("echo", 2).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_is_killed_is_back_and_the_event_says_why() -> Result<()> {
    let cluster = Cluster::start(Options::nodes(2), MODULE).await?;
    cluster.deploy("echo", Mode::Good, 2).await?;
    let load = Load::start(&cluster.client, "echo", 3, 1_000);
    load.pass(50).await?;
    let (id, start, pid) = cluster.runs("echo").await?[0].clone();
    let pid = i32::try_from(pid.context("a pid")?)?;
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGKILL,
    )?;
    until("the instance to be back with its next start", || async {
        let view = cluster.client.service("echo").await?;
        let back = view
            .instances
            .iter()
            .any(|i| i.status.id.to_string() == id && i.status.start == start + 1);
        Ok((back && view.ready == 2, view))
    })
    .await?;
    load.pass(50).await?;
    load.end().await?.assert_none_failed();
    let events = cluster.client.events().await?;
    let said = events
        .iter()
        .any(|e| e.subject.contains(&id) && e.message.contains("signal 9"));
    assert!(said, "{events:#?}");
    Ok(())
}
