//! What an administrator does with the packages: install, enable, join, restart, remove.

use anyhow::{Context, Result};
use berth_tests::{Cluster, Hosts, Mode, Options, until};

const MODULE: &str = env!("CARGO_BIN_EXE_test-module");

/// From `systemd-analyze security`: the smaller, the less a unit may.
fn exposure(hosts: &Hosts, host: usize, unit: &str) -> Result<f64> {
    let told = hosts.exec(
        host,
        &format!("systemd-analyze security --no-pager {unit} | tail -1"),
    )?;
    // "→ Overall exposure level for berth-gateway.service: 1.1 OK 🙂"
    let level = told
        .split(".service: ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    level
        .with_context(|| told.clone())?
        .parse()
        .context(told.clone())
}

fn property(hosts: &Hosts, host: usize, unit: &str, name: &str) -> Result<String> {
    hosts.exec(host, &format!("systemctl show --value -p {name} {unit}"))
}

#[test]
fn a_node_is_installed_joined_restarted_and_purged() -> Result<()> {
    Hosts::run(2, |hosts| async move {
        let cluster = Cluster::start(Options::on_hosts(), MODULE).await?;
        joins_by_one_command(&hosts, &cluster).await?;
        cluster.push("web", "1.0.0", Mode::Good)?;
        cluster.client.deploy("web", Some(2)).await?;
        cluster.wait_ready("web", 2).await?;
        cluster.wait_serving("web").await?;
        outlives_its_agent(&hosts, &cluster).await?;
        hanging_agent_is_started_anew(&hosts, &cluster).await?;
        leaves_nothing(&hosts)
    })
}

/// Installed but not joined, the unit rests; joining starts it, for good.
async fn joins_by_one_command(hosts: &Hosts, cluster: &Cluster) -> Result<()> {
    hosts.each(|host| hosts.install(host, &["berth-agent"]))?;
    let state = "systemctl is-enabled berth-agent; systemctl is-active berth-agent; systemctl is-system-running";
    let states = hosts.exec_all(&format!("{state} || true"))?;
    assert_eq!(states, ["enabled\ninactive\nrunning"; 2]);

    // One token for both machines, with labels.
    let token = cluster.cli_text(&[
        "node", "token", "create", "--uses", "2", "--label", "rack=a",
    ])?;
    hosts.each(|host| {
        hosts.configure(host, "")?;
        let told = hosts.join(host, cluster, token.trim())?;
        assert!(told.contains("joined as host"), "{told}");
        Ok(())
    })?;
    until("both nodes to be listed as ready", || async {
        let listed = cluster.cli_text(&["node", "list"])?;
        let ready = listed.lines().filter(|line| line.contains("ready")).count();
        Ok((ready == 2, listed))
    })
    .await?;
    let nodes = cluster.client.nodes().await?;
    for node in &nodes {
        assert_eq!(node.labels.get("rack").map(String::as_str), Some("a"));
    }
    let states = hosts.exec_all(state)?;
    assert_eq!(states, ["enabled\nactive\nrunning"; 2]);
    let score = exposure(hosts, 1, "berth-agent.service")?;
    eprintln!("systemd-analyze security: berth-agent {score}");
    assert!(score <= 4.0, "{score}");
    Ok(())
}

/// The restart of an upgrade, and the end by force that no program can prepare for.
async fn outlives_its_agent(hosts: &Hosts, cluster: &Cluster) -> Result<()> {
    let before = cluster.runs("web").await?;
    for end in ["restart", "kill --signal=KILL --kill-who=main"] {
        let old = property(hosts, 1, "berth-agent", "MainPID")?;
        hosts.exec(1, &format!("systemctl {end} berth-agent"))?;
        until("another agent to have a session", || async {
            let new = property(hosts, 1, "berth-agent", "MainPID")?;
            let status = property(hosts, 1, "berth-agent", "StatusText")?;
            let back = new != old && new != "0" && status.contains(", connected");
            Ok((back, (new, status)))
        })
        .await?;
        cluster.wait_ready("web", 2).await?;
        assert_eq!(cluster.runs("web").await?, before, "after {end}");
    }
    Ok(())
}

/// A stopped process cannot say that it lives.
async fn hanging_agent_is_started_anew(hosts: &Hosts, cluster: &Cluster) -> Result<()> {
    let before = cluster.runs("web").await?;
    let hang = "mkdir -p /run/systemd/system/berth-agent.service.d
        printf '[Service]\\nWatchdogSec=3\\nTimeoutAbortSec=1\\n' >/run/systemd/system/berth-agent.service.d/test.conf
        systemctl daemon-reload && systemctl restart berth-agent
        systemctl show --value -p NRestarts berth-agent
        kill -STOP $(systemctl show --value -p MainPID berth-agent)";
    hosts.exec(1, hang)?;
    until("systemd to have started the agent anew", || async {
        let restarts = property(hosts, 1, "berth-agent", "NRestarts")?;
        let state = property(hosts, 1, "berth-agent", "ActiveState")?;
        let anew = restarts != "0" && state == "active";
        Ok((anew, (restarts, state)))
    })
    .await?;
    cluster.wait_ready("web", 2).await?;
    assert_eq!(cluster.runs("web").await?, before);
    Ok(())
}

/// Removing keeps what is the administrator's; purging leaves nothing, no process either.
fn leaves_nothing(hosts: &Hosts) -> Result<()> {
    hosts.exec(1, "dpkg --remove berth-agent")?;
    hosts.exec(
        1,
        "test -e /etc/berth/agent.toml && test -e /var/lib/berth/agent/identity/node.key",
    )?;
    hosts.exec(1, "dpkg --purge berth-agent")?;
    let left = hosts.exec(
        1,
        "find / -xdev -name '*berth*' -not -path '/proc/*' -not -path '/mnt/*' -not -path '/var/log/*' \
         -not -path '/var/lib/dpkg/*'; \
         readlink /proc/[0-9]*/exe | grep -E 'berth|test-module'; \
         systemctl --failed --plain --no-legend; true",
    )?;
    assert_eq!(left, "");
    Ok(())
}

#[test]
fn a_coordinator_and_a_gateway_are_installed_and_purged() -> Result<()> {
    Hosts::run(1, |hosts| async move {
        hosts.install(1, &["berth", "berth-coordinator"])?;
        until("coordinator and gateway to be ready", || async {
            let state = hosts.exec(
                1,
                "systemctl is-active berth-coordinator berth-gateway || true",
            )?;
            Ok((state == "active\nactive", state))
        })
        .await?;
        assert_eq!(
            hosts.exec(1, "systemctl is-enabled berth-coordinator berth-gateway")?,
            "enabled\nenabled"
        );
        for unit in ["berth-coordinator.service", "berth-gateway.service"] {
            let score = exposure(&hosts, 1, unit)?;
            eprintln!("systemd-analyze security: {unit} {score}");
            assert!(score <= 2.5, "{unit}: {score}");
        }
        let status = "cd /var/lib/berth/coordinator
            export BERTH_ENDPOINT=https://127.0.0.1:7450 BERTH_CA=$PWD/ca.crt BERTH_TOKEN=$(cat admin.token)
            berth status";
        let told = hosts.exec(1, status)?;
        assert!(told.contains("host1"), "no gateway in: {told}");
        hosts.exec(1, "dpkg --purge berth berth-coordinator")?;
        let left = hosts.exec(
            1,
            "find / -xdev -name '*berth*' -not -path '/mnt/*' -not -path '/var/log/*' -not -path '/var/lib/dpkg/*'; \
             systemctl --failed --plain --no-legend; true",
        )?;
        assert_eq!(left, "");
        Ok(())
    })
}
