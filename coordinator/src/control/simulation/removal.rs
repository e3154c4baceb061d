//! Nodes that are taken out of the fleet.

use std::time::Duration;

use berth_model::id::NodeName;
use berth_model::node::NodeState;

use super::fleet::Fleet;
use super::sessions::{kinds, open};
use crate::control::{Command, ToAgent};

async fn remove(fleet: &Fleet, name: &NodeName) -> Result<NodeState, u16> {
    let command = |reply| Command::RemoveNode(name.clone(), reply);
    let answer = fleet.handle.ask(command).await;
    answer.map(|view| view.state).map_err(|p| p.status)
}

#[tokio::test(start_paused = true)]
async fn a_removed_nodes_session_ends_and_does_not_begin_again() {
    let fleet = Fleet::new(1, true).await;
    fleet.cable(0, false);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (connection, mut inbox) = open(&fleet.handle, "x", Vec::new()).await;
    let connection = connection.unwrap();
    let name: NodeName = "n0".parse().unwrap();
    assert_eq!(remove(&fleet, &name).await, Ok(NodeState::Ready));
    let mut refusals = Vec::new();
    while let Some(word) = inbox.recv().await {
        if let ToAgent::Refuse(code, _) = word {
            refusals.push(code);
        }
    }
    assert_eq!(refusals, ["removed"]);
    let late = |reply| Command::AgentStatus(connection, Vec::new(), Vec::new(), reply);
    assert_eq!(fleet.handle.ask(late).await.unwrap_err().status, 409);
    let (again, _inbox) = open(&fleet.handle, "x", Vec::new()).await;
    assert!(again.unwrap_err().kind.ends_with("removed"));
    let key = |reply| Command::AgentByKey("key-of-n0".into(), reply);
    assert_eq!(fleet.handle.ask(key).await.unwrap_err().status, 404);
    assert!(kinds(&fleet.handle).await.contains(&"node-removed".into()));
    assert_eq!(remove(&fleet, &name).await, Err(404));
}

#[tokio::test(start_paused = true)]
async fn a_lost_node_is_removed_and_nothing_is_wrong_any_more() {
    let mut fleet = Fleet::new(4, true).await;
    fleet.deploy("dga", 1).await.unwrap();
    let first = fleet.ready().await.instances.remove(0);
    let node = first.node.node().unwrap().clone();
    assert_eq!(remove(&fleet, &node).await, Err(409));
    let number: usize = node.as_str()[1..].parse().unwrap();
    fleet.cable(number, false);
    tokio::time::sleep(Duration::from_secs(60)).await;
    fleet.ready().await;
    let status = fleet.handle.ask(Command::Status).await.unwrap();
    let about = format!("node/{node}");
    let problem = status.problems.iter().find(|p| p.subject == about);
    let advice = format!("berth node remove {node}");
    assert!(problem.unwrap().message.contains(&advice), "{status:?}");

    assert_eq!(remove(&fleet, &node).await, Ok(NodeState::Lost));
    let status = fleet.handle.ask(Command::Status).await.unwrap();
    assert!(status.problems.is_empty(), "{status:?}");
    let left = fleet.ready().await.instances;
    assert!(
        left.iter().all(|i| i.node.node() != Some(&node)),
        "{left:?}"
    );

    // Neither its agent nor another coordinator brings it back.
    fleet.restart(Duration::from_secs(1)).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let nodes = fleet.handle.ask(Command::Nodes).await.unwrap();
    assert!(nodes.iter().all(|n| n.name != node), "{nodes:?}");
    assert_eq!(fleet.ready().await.instances.len(), 1);
}
