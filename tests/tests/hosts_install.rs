//! What an administrator does with the packages: install, enable, join, restart, remove.

use anyhow::{Context, Result};
use berth_tests::hosts::{OTHER, SHARE, TEST};
use berth_tests::{Client, Cluster, Hosts, Mode, Options, until};

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

/// Units that systemd finds nothing wrong with.
fn verify(hosts: &Hosts, host: usize) -> Result<()> {
    let units = "/usr/lib/systemd/system/berth-*.service";
    let told = hosts.exec(
        host,
        &format!("systemd-analyze verify --man=no {units} 2>&1 | grep berth- || true"),
    )?;
    assert_eq!(told, "");
    Ok(())
}

fn property(hosts: &Hosts, host: usize, unit: &str, name: &str) -> Result<String> {
    hosts.exec(host, &format!("systemctl show --value -p {name} {unit}"))
}

#[test]
fn packages_are_installed_joined_restarted_and_purged() -> Result<()> {
    Hosts::run(2, |hosts| async move {
        are_machines_of_their_own(&hosts).await?;
        coordinator_and_gateway(&hosts).await?;
        let cluster = Cluster::start(Options::on_hosts(), MODULE).await?;
        joins_by_one_command(&hosts, &cluster).await?;
        cluster.push("web", "1.0.0", Mode::Good)?;
        cluster.client.deploy("web", Some(2)).await?;
        cluster.wait_ready("web", 2).await?;
        cluster.wait_serving("web").await?;
        gateway_on_another_machine(&hosts, &cluster).await?;
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
        // What systemd says on these hosts, too.
        assert_eq!(node.facts.virtualization.as_deref(), Some("uml"));
    }
    let states = hosts.exec_all(state)?;
    assert_eq!(states, ["enabled\nactive\nrunning"; 2]);
    verify(hosts, 1)?;
    for (unit, most) in [("berth-agent.service", 4.0), ("berth-relay.service", 2.5)] {
        let score = exposure(hosts, 1, unit)?;
        eprintln!("systemd-analyze security: {unit} {score}");
        assert!(score <= most, "{unit}: {score}");
    }
    Ok(())
}

/// The restart of an upgrade, and the end by force that no program can prepare for.
async fn outlives_its_agent(hosts: &Hosts, cluster: &Cluster) -> Result<()> {
    let before = cluster.runs("web").await?;
    for end in ["restart", "kill --signal=KILL --kill-who=main"] {
        let old = property(hosts, 1, "berth-agent", "MainPID")?;
        hosts.exec(1, &format!("systemctl {end} berth-agent"))?;
        until("another agent to have a session", || async {
            let both = property(hosts, 1, "berth-agent", "MainPID,StatusText")?;
            let (new, status) = both.split_once('\n').unwrap_or_default();
            let back = new != old && new != "0" && status.contains(", connected");
            Ok((back, both))
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
        let both = property(hosts, 1, "berth-agent", "NRestarts,ActiveState")?;
        let (restarts, state) = both.split_once('\n').unwrap_or_default();
        Ok((restarts != "0" && state == "active", both))
    })
    .await?;
    cluster.wait_ready("web", 2).await?;
    assert_eq!(cluster.runs("web").await?, before);
    Ok(())
}

/// What docs/operations.md says of a gateway that is not on the coordinator's machine.
async fn gateway_on_another_machine(hosts: &Hosts, cluster: &Cluster) -> Result<()> {
    let host = 2;
    let data = cluster.home().join("coordinator");
    // It has a fleet of its own: see `coordinator_and_gateway`.
    let give_up = "systemctl disable --now berth-coordinator berth-gateway
        rm -r /var/lib/berth/coordinator /var/lib/berth/gateway";
    hosts.exec(host, give_up)?;
    for file in ["ca.crt", "gateway.token"] {
        hosts.put(host, &data.join(file), &format!("/etc/berth/{file}"))?;
    }
    let api = std::fs::read_to_string(data.join("endpoint"))?;
    let api = api.trim().trim_start_matches("https://");
    let begin = format!(
        "cd /etc/berth; chown root:berth-gateway gateway.token && chmod 640 gateway.token
        echo 'endpoint = \"{api}\"' >>gateway.toml && systemctl enable --now berth-gateway"
    );
    hosts.exec(host, &begin)?;
    let at = format!("{}:7480", hosts.address(host)).parse()?;
    let through = Client::new(api.parse()?, &data, at)?;
    until("that gateway to answer", || async {
        let answer = through.predict("web", 0).await?;
        Ok((answer.0.is_success(), answer))
    })
    .await
}

/// Removing keeps what is the administrator's; purging leaves nothing, no process either.
fn leaves_nothing(hosts: &Hosts) -> Result<()> {
    hosts
        .each(|host| {
            hosts.exec(host, "dpkg --remove berth-agent")?;
            let kept =
                "test -e /etc/berth/agent.toml && test -e /var/lib/berth/agent/identity/node.key";
            hosts.exec(host, kept)?;
            let packages = match host {
                2 => "berth-agent berth berth-coordinator",
                _ => "berth-agent",
            };
            hosts.exec(host, &format!("dpkg --purge {packages}"))?;
            nothing_is_left(hosts, host)
        })
        .map(drop)
}

/// What the tests on hosts rely on: names, files handed over, links that can be lost.
async fn are_machines_of_their_own(hosts: &Hosts) -> Result<()> {
    let names = hosts.exec_all("hostname; systemctl is-system-running")?;
    assert_eq!(names, ["host1\nrunning", "host2\nrunning"]);
    assert!(hosts.succeeds(1, "grep -q cgroup2 /proc/mounts"));
    std::fs::write(hosts.share().join("word"), "shared ")?;
    hosts.write(1, "/root/told", "and told")?;
    let both = hosts.exec(1, &format!("cat {SHARE}/word /root/told"))?;
    assert_eq!(both, "shared and told");

    // The test's second address can be lost apart from the first.
    let reach = |address: &str| format!("ip route get {address} | grep -q eth0");
    hosts.lose_other(2, true)?;
    assert!(hosts.succeeds(2, &reach(TEST)) && !hosts.succeeds(2, &reach(OTHER)));
    hosts.lose_other(2, false)?;
    assert!(hosts.succeeds(2, &reach(OTHER)));

    // And a cable can be pulled.
    hosts.link_down(2)?;
    assert!(!hosts.succeeds(2, "true"));
    hosts.link_up(2)?;
    until("the host to be back on the network", || async {
        Ok((hosts.succeeds(2, "true"), "not yet"))
    })
    .await
}

/// A whole fleet's head on one machine, from nothing.
async fn coordinator_and_gateway(hosts: &Hosts) -> Result<()> {
    let host = 2;
    hosts.install(host, &["berth", "berth-coordinator"])?;
    let units = "berth-coordinator.service berth-gateway.service";
    until("coordinator and gateway to be ready", || async {
        let state = hosts.exec(host, &format!("systemctl is-active {units} || true"))?;
        Ok((state == "active\nactive", state))
    })
    .await?;
    let enabled = hosts.exec(host, &format!("systemctl is-enabled {units}"))?;
    assert_eq!(enabled, "enabled\nenabled");
    for unit in units.split(' ') {
        let score = exposure(hosts, host, unit)?;
        eprintln!("systemd-analyze security: {unit} {score}");
        assert!(score <= 2.5, "{unit}: {score}");
    }
    verify(hosts, host)?;
    let status = "cd /var/lib/berth/coordinator
        export BERTH_ENDPOINT=https://127.0.0.1:7450 BERTH_CA=$PWD/ca.crt BERTH_TOKEN=$(cat admin.token)
        berth status";
    let told = hosts.exec(host, status)?;
    assert!(told.contains("host2"), "no gateway in: {told}");
    // Replaced without a gap: another process, and systemd knows it.
    let before = property(hosts, host, "berth-gateway", "MainPID")?;
    hosts.exec(host, "systemctl reload berth-gateway")?;
    until("another gateway to be the main process", || async {
        let pid = property(hosts, host, "berth-gateway", "MainPID")?;
        Ok((pid != before && pid != "0", pid))
    })
    .await
}

/// No file and no process of Berth, and no unit that has failed.
fn nothing_is_left(hosts: &Hosts, host: usize) -> Result<()> {
    let left = hosts.exec(
        host,
        "find / -xdev -name '*berth*' -not -path '/var/log/*' -not -path '/var/lib/dpkg/*'; \
         readlink /proc/[0-9]*/exe | grep -E 'berth|test-module'; \
         systemctl --failed --plain --no-legend; true",
    )?;
    assert_eq!(left, "");
    Ok(())
}
