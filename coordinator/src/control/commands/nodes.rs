//! Taking nodes out of the fleet.

use berth_model::api::NodeView;
use berth_model::id::NodeName;
use berth_model::node::NodeState;
use berth_model::problem::Problem;

use crate::control::events::Happened;
use crate::control::views;
use crate::control::world::World;

/// Forgets a node: its key counts for nothing from then on, and the planner replaces what it had.
/// Answers with the node as it was last. Errors: 404; 409 while its agent is connected and has
/// instances, which nobody would stop any more.
pub(crate) fn remove(world: &mut World, name: &NodeName) -> Result<NodeView, Problem> {
    let view = views::node::one(world, name)?;
    if view.state == NodeState::Ready && !view.instances.is_empty() {
        let instances: Vec<String> = view.instances.iter().map(ToString::to_string).collect();
        return Err(Problem::conflict(format!(
            "node {name} is connected and has {}: stop its berth-agent and run \
             `berth-agent stop-instances` on the machine, then remove it; or scale down or delete \
             the services first",
            instances.join(", ")
        )));
    }
    world.records.nodes.remove(name);
    world.happened(&Happened::NodeRemoved(name));
    Ok(view)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::{connect, node_record, world_with_service};

    #[test]
    fn a_connected_node_with_instances_stays() {
        let mut w = world_with_service();
        let name: NodeName = "n1".parse().unwrap();
        let refused = remove(&mut w, &name).unwrap_err();
        assert_eq!(refused.status, 409);
        assert!(refused.detail.contains("web.1.0.1"), "{refused}");
        assert!(refused.detail.contains("stop-instances"), "{refused}");
        assert!(w.records.nodes.contains_key(&name));

        // Silent: its instances may be gone for all one knows.
        w.live.agents.clear();
        assert_eq!(remove(&mut w, &name).unwrap().state, NodeState::Silent);
        assert!(!w.records.nodes.contains_key(&name));
        let event = w.records.events.values().next_back().unwrap();
        assert_eq!(
            (event.kind.as_str(), event.subject.as_str()),
            ("node-removed", "node/n1")
        );
        assert_eq!(remove(&mut w, &name).unwrap_err().status, 404);
    }

    #[test]
    fn a_connected_node_without_instances_goes() {
        let mut w = world_with_service();
        let node = node_record("n2", true);
        w.records.nodes.put(node.name.clone(), node.clone());
        connect(&mut w, "n2");
        assert_eq!(remove(&mut w, &node.name).unwrap().state, NodeState::Ready);
        assert!(!w.records.nodes.contains_key(&node.name));
    }
}
