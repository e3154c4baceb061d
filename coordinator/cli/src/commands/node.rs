mod drain;

use std::process::ExitCode;

use anyhow::Result;
use berth_model::api::{CreateToken, DrainView, LabelNode, List, NodeView, TokenView};
use berth_model::node::{Isolation, NodeState, NodeStatistics, RuntimeKind};
use berth_model::relay::RelayStatistics;
use berth_model::time::Timestamp;

use crate::args::{Label, Node, Token};
use crate::client::Client;
use crate::{output, table, words};

pub(super) async fn run(client: &Client, node: Node) -> Result<ExitCode> {
    match node {
        Node::Drain(drain) => return drain::run(client, drain).await,
        Node::Cordon { node } => {
            let path = format!("/v1/nodes/{node}/cordon");
            let _: NodeView = client.tell(&path).await?;
            output::line(&format!(
                "{node} is cordoned: it takes nothing new, and what runs there stays"
            ))
        }
        Node::Uncordon { node } => {
            let path = format!("/v1/nodes/{node}/uncordon");
            let _: NodeView = client.tell(&path).await?;
            output::line(&format!("{node} takes instances again"))
        }
        Node::Label(wanted) => label(client, wanted).await,
        Node::List(reading) => {
            let list: List<NodeView> = client.get("/v1/nodes").await?;
            output::show(reading.output, &list.items, |width| {
                nodes(&list.items, words::now(), width)
            })
        }
        Node::Show { node, reading } => {
            let view: NodeView = client.get(&format!("/v1/nodes/{node}")).await?;
            output::show(reading.output, &view, |_| show(&view))
        }
        Node::Remove { node } => {
            let _: NodeView = client.delete(&format!("/v1/nodes/{node}")).await?;
            output::line(&format!("{node} is removed"))
        }
        Node::Token(Token::Create {
            uses,
            ttl,
            labels,
            reading,
        }) => {
            let body = CreateToken {
                uses: Some(uses),
                ttl: Some(ttl),
                labels: labels.into_iter().collect(),
            };
            let view: TokenView = client.post("/v1/tokens", &body).await?;
            output::show(reading.output, &view, |_| format!("{}\n", view.token))
        }
    }?;
    Ok(ExitCode::SUCCESS)
}

async fn label(client: &Client, wanted: Label) -> Result<()> {
    let mut body = LabelNode::default();
    for (key, value) in wanted.changes {
        match value {
            Some(value) => drop(body.set.insert(key, value)),
            None => body.remove.push(key),
        }
    }
    let node = wanted.node;
    let view: NodeView = client
        .post(&format!("/v1/nodes/{node}/labels"), &body)
        .await?;
    let labels = view.labels.iter().map(|(k, v)| format!("{k}={v}"));
    let labels: Vec<String> = labels.collect();
    output::line(&match labels.join(", ").as_str() {
        "" => format!("{node} has no labels now"),
        labels => format!("{node} has {labels} now"),
    })
}

fn state(view: &NodeView) -> String {
    let state = match view.state {
        NodeState::Ready => "ready",
        NodeState::Silent => "silent",
        NodeState::Lost => "lost",
    };
    let mut words = vec![state];
    let moving = view.drain.as_ref().map(|drain| match drain.drained {
        Some(_) => "drained".to_owned(),
        None => format!("draining {}/{}", drain.moved, drain.total),
    });
    match &moving {
        Some(moving) => words.push(moving),
        None if view.cordoned => words.push("cordoned"),
        None => {}
    }
    let conditions = view.facts.conditions.iter().map(|c| c.kind.as_str());
    // A runtime's condition is named after it; the others say what is wrong.
    let failing: Vec<String> = conditions
        .map(|kind| match kind.parse::<RuntimeKind>() {
            Ok(_) => format!("no {kind}"),
            Err(_) => kind.to_owned(),
        })
        .collect();
    words.extend(failing.iter().map(String::as_str));
    words.join(",")
}

fn nodes(nodes: &[NodeView], now: Timestamp, width: Option<usize>) -> String {
    if nodes.is_empty() {
        return "No nodes. `berth node token create` makes a token, `berth-agent join` on a machine uses it\n"
            .to_owned();
    }
    let rows: Vec<Vec<String>> = nodes
        .iter()
        .map(|node| {
            let instances: Vec<String> = node.instances.iter().map(ToString::to_string).collect();
            vec![
                node.name.to_string(),
                state(node),
                kind(node),
                format!("{:.1}", cores(node)),
                words::bytes(node.facts.capacity.memory_bytes),
                node.facts.agent_version.clone(),
                words::age(node.joined, now),
                instances.join(","),
            ]
        })
        .collect();
    let heading = [
        "NAME",
        "STATE",
        "KIND",
        "CPU",
        "MEMORY",
        "AGENT",
        "JOINED",
        "INSTANCES",
    ];
    table::render(&heading, &rows, width)
}

fn kind(node: &NodeView) -> String {
    let kind = node.facts.kind.as_str();
    if node.facts.exclusive {
        format!("{kind},exclusive")
    } else {
        kind.to_owned()
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a machine's cores, shown with one decimal"
)]
fn cores(node: &NodeView) -> f64 {
    node.facts.capacity.cpu_millis as f64 / 1000.0
}

fn show(node: &NodeView) -> String {
    let labels: Vec<String> = node
        .labels
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    let instances: Vec<String> = node.instances.iter().map(ToString::to_string).collect();
    let runtimes: Vec<String> = node
        .facts
        .runtimes
        .iter()
        .map(ToString::to_string)
        .collect();
    let or_none = |text: String| {
        if text.is_empty() {
            "none".to_owned()
        } else {
            text
        }
    };
    let conditions: String = node
        .facts
        .conditions
        .iter()
        .map(|c| format!("  condition  {}: {}\n", c.kind, c.message))
        .collect();
    let draining: String = node.drain.iter().map(drain_lines).collect();
    let gpu = |gpu: &berth_model::node::Gpu| {
        let memory = words::bytes(gpu.memory_bytes);
        format!(
            "  gpu        {} ({}, {memory}, driver {})\n",
            gpu.uuid, gpu.name, gpu.driver
        )
    };
    let gpus: String = node.facts.gpus.iter().map(gpu).collect();
    let within = node.facts.virtualization.as_ref();
    let within = within.map(|name| format!(" ({name})")).unwrap_or_default();
    let now = node.statistics.as_ref().map(doing).unwrap_or_default();
    let isolation = node.facts.isolation.as_ref();
    let isolation = isolation.map(isolation_lines).unwrap_or_default();
    format!(
        "{}  {}\n{conditions}{draining}  kind       {}{}\n  host       {} ({}, {})\n  agent      {}\n  capacity   {:.1} cores, {} memory, {} disk, {} GPUs\n{gpus}{now}  runtimes   {}\n{isolation}  labels     {}\n  instances  {}\n  joined     {}\n",
        node.name,
        state(node),
        kind(node),
        within,
        node.facts.hostname,
        node.facts.os,
        node.facts.arch,
        node.facts.agent_version,
        cores(node),
        words::bytes(node.facts.capacity.memory_bytes),
        words::bytes(node.facts.capacity.disk_bytes),
        node.facts.capacity.gpus,
        or_none(runtimes.join(", ")),
        or_none(labels.join(", ")),
        or_none(instances.join(", ")),
        node.joined.rfc3339(),
    )
}

/// How instances that are plain processes are kept apart, and in what not.
fn isolation_lines(isolation: &Isolation) -> String {
    let enforced = match isolation.enforced.as_slice() {
        [] => "nothing".to_owned(),
        enforced => enforced.join(", "),
    };
    let mut text = format!("  isolation  {}: {enforced}\n", isolation.launcher);
    for missing in &isolation.missing {
        text.push_str(&format!("             not {missing}\n"));
    }
    text
}

/// What it does now.
fn doing(now: &NodeStatistics) -> String {
    let [one, five, fifteen] = now.load;
    format!(
        "  load       {one:.2} {five:.2} {fifteen:.2}, up {}\n  in use     {} memory; free: {} memory, {} disk; packages: {}\n",
        words::duration(std::time::Duration::from_secs(now.uptime_secs)),
        words::bytes(now.memory_used_bytes),
        words::bytes(now.memory_available_bytes),
        words::bytes(now.disk_free_bytes),
        words::bytes(now.packages_bytes),
    ) + &now.relay.as_ref().map(relay_line).unwrap_or_default()
}

/// What its relay has done since its process began. What may be trouble is said only where there is some.
fn relay_line(relay: &RelayStatistics) -> String {
    let mut words = vec![
        format!("{} connections open", relay.open),
        format!("{} passed on", relay.passed_on),
    ];
    let troubles = [
        (relay.refused, "refused"),
        (relay.crowded_out, "without a place for a handshake"),
        (relay.not_connected, "not connected to an instance"),
        (relay.cut_off, "cut off"),
    ];
    let some = troubles.into_iter().filter(|(count, _)| *count > 0);
    words.extend(some.map(|(count, what)| format!("{count} {what}")));
    format!(
        "  relay      {}; {} in, {} out\n",
        words.join(", "),
        words::bytes(relay.to_instances_bytes),
        words::bytes(relay.from_instances_bytes),
    )
}

fn drain_lines(drain: &DrainView) -> String {
    let mut text = format!("  drain      {}\n", drain::progress(drain));
    for reason in &drain.reasons {
        text.push_str(&format!("             {reason}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(name: &str, more: serde_json::Value) -> NodeView {
        let mut view = serde_json::json!({
            "name": name, "state": "ready", "cordoned": false, "labels": {"zone": "a"},
            "instances": ["web.1.0.1"], "joined": 0,
            "facts": {
                "kind": "virtual", "exclusive": true, "hostname": "host", "os": "Debian 12", "arch": "x86_64",
                "agent_version": "0.1.0", "runtimes": ["process"],
                "capacity": {"cpu_millis": 2500, "memory_bytes": 4_294_967_296_u64, "gpus": 0, "disk_bytes": 1024},
            },
        });
        for (key, value) in more.as_object().unwrap() {
            view[key] = value.clone();
        }
        serde_json::from_value(view).unwrap()
    }

    fn draining() -> NodeView {
        let drain = serde_json::json!({
            "started": 0, "total": 3, "moved": 1, "left": "30m", "force": false, "stuck": false,
            "reasons": ["no-spare-node: web.1.0.1 stays on node n1", "web.1.1.1 is stopping"],
        });
        view("n1", serde_json::json!({"cordoned": true, "drain": drain}))
    }

    #[test]
    fn nodes_are_listed_with_what_is_done_to_them() {
        let drained = serde_json::json!({
            "started": 0, "total": 3, "moved": 3, "left": "0ms", "force": true, "stuck": false,
            "drained": 1000, "reasons": [],
        });
        let all = [
            draining(),
            view(
                "n2",
                serde_json::json!({"cordoned": true, "drain": drained, "instances": []}),
            ),
            view(
                "n3",
                serde_json::json!({"cordoned": true, "state": "silent"}),
            ),
            view("n4", serde_json::json!({})),
        ];
        let text = nodes(&all, Timestamp(90_000), None);
        assert_eq!(text, include_str!("../../tests/golden/node-list.txt"));
    }

    #[test]
    fn a_relay_tells_of_trouble_where_there_is_some() {
        let quiet = RelayStatistics {
            open: 3,
            passed_on: 120,
            to_instances_bytes: 2048,
            ..RelayStatistics::default()
        };
        let said = relay_line(&quiet);
        assert_eq!(
            said,
            "  relay      3 connections open, 120 passed on; 2.0 KiB in, 0 B out\n"
        );
        let said = relay_line(&RelayStatistics {
            refused: 7,
            cut_off: 1,
            ..quiet
        });
        assert!(
            said.contains("120 passed on, 7 refused, 1 cut off;"),
            "{said}"
        );
    }

    #[test]
    fn a_node_says_how_far_its_drain_is() {
        let text = show(&draining());
        assert_eq!(text, include_str!("../../tests/golden/node-show.txt"));
    }
}
