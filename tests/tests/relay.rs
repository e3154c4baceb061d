//! Predictions on their way through relays, and what becomes of them when something ends.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use berth_tests::{Cluster, Load, Mode, Options, bin, until};

const MODULE: &str = env!("CARGO_BIN_EXE_test-module");
const RELAY: &str = "transport = \"relay\"\n";
const PLAIN: &str = "transport = \"plain\"\n";

fn options(nodes: usize) -> Options {
    Options {
        relay: true,
        coordinator: RELAY.to_owned(),
        ..Options::nodes(nodes)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_goes_on_whatever_becomes_of_agents_and_relays() -> Result<()> {
    let mut cluster = Cluster::start(options(2), MODULE).await?;
    cluster.deploy("echo", Mode::Good, 2).await?;
    // Predictions pass before the gateway has said which table it goes by.
    until("nothing to be wrong", || async {
        let status = cluster.client.status().await?;
        Ok((status.problems.is_empty(), status.problems))
    })
    .await?;
    let status = cluster.client.status().await?;
    assert_eq!(status.transport, "relay", "{status:?}");
    for node in cluster.client.nodes().await? {
        assert!(node.facts.relay.is_some(), "{node:?}");
    }
    let before = cluster.runs("echo").await?;
    let load = Load::start(&cluster.client, "echo", 4, 0);
    load.pass(50).await?;

    // The relays serve by what is on the disk.
    for agent in &mut cluster.agents {
        agent.kill();
    }
    load.pass(100).await?;
    cluster.relays[0].kill();
    load.pass(20).await?;
    cluster.relays[0].restart()?;
    load.pass(100).await?;
    for agent in &mut cluster.agents {
        agent.restart()?;
    }
    cluster.wait_connected().await?;
    load.pass(50).await?;

    until("both relays to have passed something on", || async {
        let passed = passed(&cluster);
        Ok((passed.iter().all(|n| *n > 0), passed))
    })
    .await?;

    // A new process takes over from each relay, and counts from nothing.
    for i in 0..2 {
        let place = cluster.relay_place(i);
        // What it starts outlives it, and would hold a pipe open.
        let log = std::fs::File::create(place.runtime.join("reload.log"))?;
        let status = std::process::Command::new(bin("berth-relay")?)
            .arg("--folder")
            .arg(&place.folder)
            .arg("--runtime")
            .arg(&place.runtime)
            .arg("reload")
            .stderr(log)
            .status()?;
        assert!(status.success(), "{status}");
        load.pass(50).await?;
    }
    let outcome = load.end().await?;
    outcome.assert_none_failed();
    assert_eq!(
        cluster.runs("echo").await?,
        before,
        "no instance was restarted"
    );
    for i in 0..2 {
        // Those that took over are nobody's children here.
        let text = cluster.relay_place(i).runtime.display().to_string();
        end_relays(&text)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_one_instance_only_a_relays_crash_costs_no_prediction() -> Result<()> {
    let mut cluster = Cluster::start(options(1), MODULE).await?;
    cluster.deploy("echo", Mode::Good, 1).await?;
    let load = Load::start(&cluster.client, "echo", 4, 0);
    load.pass(50).await?;
    for _ in 0..2 {
        let before = missed(&cluster);
        cluster.relays[0].kill();
        until("the gateway to miss the relay", || async {
            let now = missed(&cluster);
            Ok((now > before, now))
        })
        .await?;
        cluster.relays[0].restart()?;
        load.pass(50).await?;
    }
    load.end().await?.assert_none_failed();
    Ok(())
}

/// How often the gateway's log tells of a relay that is away.
fn missed(cluster: &Cluster) -> usize {
    let log = cluster.gateway.log();
    log.matches("its relay does not answer").count()
}

/// How gateways reach `echo`, and what is said of it.
async fn transport(cluster: &Cluster, word: &str, address: IpAddr) -> Result<String> {
    until(&format!("the transport to be {word}"), || async {
        let status = cluster.client.status().await?;
        let warned = status.problems.iter().any(|p| p.subject == "transport");
        let done = status.transport == word && warned == (word == "plain");
        Ok((done, (status.transport, status.problems)))
    })
    .await?;
    for instance in cluster.client.service("echo").await?.instances {
        let at = instance.status.address.map(|at| at.ip());
        assert_eq!(at, Some(address), "{instance:?}");
    }
    cluster.cli_text(&["status"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_goes_from_plain_to_relays_and_back_under_load() -> Result<()> {
    let Some(address) = berth_tests::own_address() else {
        return berth_tests::skip(
            "relay::a_fleet_goes_from_plain_to_relays_and_back_under_load",
            "this machine has no address but loopback",
        );
    };
    let options = Options {
        agent: format!("exclusive = false\naddress = \"{address}\"\n"),
        coordinator: PLAIN.to_owned(),
        ..options(2)
    };
    let mut cluster = Cluster::start(options, MODULE).await?;
    cluster.deploy("echo", Mode::Good, 2).await?;
    let said = transport(&cluster, "plain", address).await?;
    assert!(said.contains("in the clear"), "{said}");
    let load = Load::start(&cluster.client, "echo", 4, 0);
    load.pass(50).await?;
    assert_eq!(passed(&cluster), [0, 0], "dialled themselves");

    // What runs stays reachable as it was started.
    cluster.reconfigure(RELAY).await?;
    load.pass(50).await?;
    cluster.push("echo", "1.1.0", Mode::Good)?;
    cluster.client.deploy("echo", None).await?;
    cluster.wait_ready("echo", 2).await?;
    let loopback = Ipv4Addr::LOCALHOST.into();
    let said = transport(&cluster, "relay", loopback).await?;
    assert!(!said.contains("in the clear"), "{said}");
    load.pass(50).await?;
    until("both relays to have passed something on", || async {
        let passed = passed(&cluster);
        Ok((passed.iter().all(|n| *n > 0), passed))
    })
    .await?;

    cluster.reconfigure(PLAIN).await?;
    load.pass(50).await?;
    cluster.push("echo", "1.2.0", Mode::Good)?;
    cluster.client.deploy("echo", None).await?;
    cluster.wait_ready("echo", 2).await?;
    transport(&cluster, "plain", address).await?;
    load.pass(50).await?;
    load.end().await?.assert_none_failed();
    Ok(())
}

/// What two relays have passed on.
fn passed(cluster: &Cluster) -> [u64; 2] {
    [0, 1].map(|i| cluster.relay_place(i).figure("passed_on_total"))
}

/// Ends the relays whose runtime folder this is.
fn end_relays(runtime: &str) -> Result<()> {
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.contains("berth-relay") && line.split('\0').any(|word| word == runtime) {
            nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            )?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_gateway_reaches_nothing_until_it_is_let_in_again() -> Result<()> {
    let mut cluster = Cluster::start(options(1), MODULE).await?;
    cluster.deploy("echo", Mode::Good, 1).await?;
    let said = cluster.cli_text(&["gateway", "revoke", "test"])?;
    assert!(said.contains("gateway.token"), "{said}");
    until("the relay to turn the gateway away", || async {
        let answer = cluster.client.predict("echo", 1).await?;
        Ok((
            answer.0.as_u16() == 502 && answer.2.contains("relay"),
            answer,
        ))
    })
    .await?;
    // Its kept connections were cut off, too, and it is not taken back after a restart.
    cluster.gateway.kill();
    cluster.restart_gateway().await?;
    until("the gateway to serve by its table", || async {
        let answer = cluster.client.predict("echo", 2).await;
        let served = answer.as_ref().map(|a| a.0.as_u16()).unwrap_or(0);
        Ok((served == 502, served))
    })
    .await?;
    let list = cluster.cli_text(&["gateway", "list"])?;
    assert!(list.contains("revoked"), "{list}");
    cluster.cli_text(&["gateway", "remove", "test"])?;
    cluster.wait_serving("echo").await?;
    // It has its certificate on the disk: the coordinator is not needed for a new start.
    cluster.coordinator.kill();
    cluster.gateway.kill();
    cluster.restart_gateway().await?;
    cluster.wait_serving("echo").await?;
    cluster.coordinator.restart()?;
    cluster.wait_connected().await
}
