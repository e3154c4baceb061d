//! Machines that are drained, cut off from their coordinator or from everybody, set to another time, and off past their
//! certificate's end: clients are served all the time, and nobody has to lend a hand.

use std::time::Duration;

use anyhow::{Context, Result};
use berth_model::api::NodeView;
use berth_tests::{Cluster, Hosts, Load, Mode, Options, until};

const MODULE: &str = env!("CARGO_BIN_EXE_test-module");
/// A node's certificate is good for so long.
const LIFE: Duration = Duration::from_secs(10);

#[test]
fn nodes_are_drained_cut_off_and_wrong_about_the_time() -> Result<()> {
    Hosts::run(3, |hosts| async move {
        let mut options = Options::on_hosts();
        // A lost machine is to be replaced, and a certificate to end, within the test.
        options.coordinator =
            "heartbeat = \"1s\"\nnode_lease = \"10s\"\nnode_certificate_life = \"10s\"\n"
                .to_owned();
        let cluster = Cluster::start(options, MODULE).await?;
        hosts.join_all(&cluster, "").await?;
        cluster.deploy("web", Mode::Good, 2).await?;
        drained(&cluster).await?;
        cut_off(&hosts, &cluster).await?;
        unplugged(&hosts, &cluster).await?;
        wrong_clocks(&hosts, &cluster).await?;
        off_past_its_certificates_end(&hosts, &cluster).await
    })
}

/// The host (from 1) on which the first instance is, and the instance.
async fn first(cluster: &Cluster) -> Result<(usize, String)> {
    let view = cluster.client.service("web").await?;
    let instance = view.instances.first().context("an instance")?;
    let name = instance.node.to_string();
    let number = name.trim_start_matches("host").parse()?;
    Ok((number, instance.status.id.to_string()))
}

async fn node(cluster: &Cluster, host: usize) -> Result<NodeView> {
    let name = format!("host{host}");
    let nodes = cluster.client.nodes().await?;
    let found = nodes.into_iter().find(|n| n.name.as_str() == name);
    found.context(name)
}

async fn drained(cluster: &Cluster) -> Result<()> {
    let (host, id) = first(cluster).await?;
    let load = Load::start(&cluster.client, "web", 4, 1);
    load.pass(100).await?;
    let told = cluster.cli_text(&["node", "drain", &format!("host{host}")])?;
    assert!(told.contains("1 moved"), "{told}");
    load.pass(100).await?;
    let outcome = load.end().await?;
    outcome.assert_none_failed();
    assert!(outcome.by_instance.contains_key(&id), "{outcome:?}");
    assert_eq!(node(cluster, host).await?.instances, []);
    cluster.cli_text(&["node", "uncordon", &format!("host{host}")])?;
    cluster.wait_ready("web", 2).await
}

/// It serves whom it still reaches until it is replaced, and never again after that.
async fn cut_off(hosts: &Hosts, cluster: &Cluster) -> Result<()> {
    let (host, id) = first(cluster).await?;
    let load = Load::start(&cluster.client, "web", 4, 1_000);
    load.pass(50).await?;
    hosts.lose_other(host, true)?;
    until("the coordinator to hear nothing of it", || async {
        let status = cluster.client.status().await?;
        Ok((status.nodes.get("silent") == Some(&1), status))
    })
    .await?;
    let meanwhile = Load::start(&cluster.client, "web", 2, 100_000);
    meanwhile.pass(50).await?;
    let outcome = meanwhile.end().await?;
    assert!(outcome.by_instance.contains_key(&id), "{outcome:?}");
    replaced(cluster).await?;
    load.pass(50).await?;
    load.end().await?.assert_none_failed();

    // Its module runs on; its requests are over, also when it is back.
    assert!(hosts.succeeds(host, &module(&id)));
    let after = Load::start(&cluster.client, "web", 4, 200_000);
    after.pass(50).await?;
    hosts.lose_other(host, false)?;
    comes_back(hosts, cluster, (host, &id), after).await
}

/// Nobody reaches it, and it reaches nobody, until its certificate has ended, too.
async fn unplugged(hosts: &Hosts, cluster: &Cluster) -> Result<()> {
    cluster.client.scale("web", 2).await?;
    cluster.wait_ready("web", 2).await?;
    let (host, id) = first(cluster).await?;
    let load = Load::start(&cluster.client, "web", 4, 400_000);
    load.pass(50).await?;
    hosts.link_down(host)?;
    replaced(cluster).await?;
    load.pass(50).await?;
    let outcome = load.end().await?;
    outcome.assert_none_failed();
    assert!(outcome.by_instance.contains_key(&id), "{outcome:?}");
    let after = Load::start(&cluster.client, "web", 4, 500_000);
    hosts.link_up(host)?;
    comes_back(hosts, cluster, (host, &id), after).await
}

/// Waits until what is on the machine that nothing is heard of runs elsewhere.
async fn replaced(cluster: &Cluster) -> Result<()> {
    until("it to be replaced", || async {
        let view = cluster.client.service("web").await?;
        let lost = cluster.client.status().await?.nodes.get("lost") == Some(&1);
        Ok((lost && view.ready == 2, view))
    })
    .await
}

/// Whether a process of this instance runs, as a script.
fn module(id: &str) -> String {
    format!("grep -qsz BERTH_INSTANCE={id} /proc/[0-9]*/environ")
}

/// A machine that returns stops what was replaced, which nobody asks again, and is used again.
async fn comes_back(
    hosts: &Hosts,
    cluster: &Cluster,
    (host, id): (usize, &str),
    load: Load,
) -> Result<()> {
    until("it to be back without what was replaced", || async {
        let view = node(cluster, host).await?;
        let ready = cluster.client.status().await?.nodes.get("lost") == Some(&0);
        let empty = ready && view.instances.is_empty();
        Ok((empty && !hosts.succeeds(host, &module(id)), view))
    })
    .await?;
    cluster.client.scale("web", 3).await?;
    cluster.wait_ready("web", 3).await?;
    load.pass(50).await?;
    let outcome = load.end().await?;
    outcome.assert_none_failed();
    assert!(!outcome.by_instance.contains_key(id), "{outcome:?}");
    Ok(())
}

/// How often agents have begun a session.
async fn sessions(cluster: &Cluster) -> Result<usize> {
    let events = cluster.client.events().await?;
    Ok(events.iter().filter(|e| e.kind == "node-connected").count())
}

/// An hour and a year, both ways: what has a session keeps it, and an agent that begins gets one.
async fn wrong_clocks(hosts: &Hosts, cluster: &Cluster) -> Result<()> {
    let before = cluster.runs("web").await?;
    let load = Load::start(&cluster.client, "web", 4, 300_000);
    let right = || -> Result<u64> {
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        Ok(time.as_secs())
    };
    let (hour, year) = (3_600, 365 * 86_400);
    for shifts in [[hour, year, -year], [-hour, -year, year], [0, 0, 0]] {
        let now = right()?;
        hosts.each(|host| {
            let time = now.saturating_add_signed(shifts[host - 1]);
            hosts.exec(host, &format!("date -s @{time}"))
        })?;
        load.pass(30).await?;
        let sessions_before = sessions(cluster).await?;
        hosts.exec_all("systemctl restart berth-agent")?;
        until("all agents to be back", || async {
            let now = sessions(cluster).await?;
            let status = cluster.client.status().await?;
            let ready = status.nodes.get("ready") == Some(&3);
            Ok((ready && now >= sessions_before + 3, (now, status)))
        })
        .await?;
        load.pass(30).await?;
    }
    load.end().await?.assert_none_failed();
    assert_eq!(
        cluster.runs("web").await?,
        before,
        "something was restarted"
    );
    Ok(())
}

async fn off_past_its_certificates_end(hosts: &Hosts, cluster: &Cluster) -> Result<()> {
    let read = "cat /var/lib/berth/agent/identity/node.crt";
    let (host, _) = first(cluster).await?;
    let before = hosts.exec(host, read)?;
    hosts.cut(host)?;
    // The time away is what is tested; nothing is waited for.
    tokio::time::sleep(LIFE + Duration::from_secs(1)).await;
    hosts.boot(host)?;
    until("it to be ready with a new certificate", || async {
        let ready = cluster.client.status().await?.nodes.get("ready") == Some(&3);
        let now = hosts.exec(host, read)?;
        Ok((ready && now != before, now))
    })
    .await?;
    cluster.wait_ready("web", 3).await
}
