//! What people do with nodes: cordon, label, take out of the fleet. `drains` empties them.

use berth_model::api::{LabelNode, NodeView, rules};
use berth_model::id::NodeName;
use berth_model::node::NodeState;
use berth_model::problem::Problem;

use super::check_size;
use super::joining::MAX_LABELS;
use crate::control::events::{Happened, OfNode};
use crate::control::world::World;
use crate::control::{labels_text, views};

/// Keeps new instances off a node, or lets them on again; the latter ends its drain, too. The same again
/// changes nothing. Errors: 404.
pub(crate) fn cordon(world: &mut World, name: &NodeName, on: bool) -> Result<NodeName, Problem> {
    let before = views::node::find(world, name)?.clone();
    let mut node = before.clone();
    node.cordoned = on;
    if !on {
        node.drain = None;
    }
    if node != before {
        world.records.nodes.put(name.clone(), node);
        world.happened(&Happened::Node(if on {
            OfNode::Cordoned(name)
        } else {
            OfNode::Uncordoned(name)
        }));
    }
    Ok(name.clone())
}

/// Changes a node's labels; what runs on it stays. Errors: 404; 422 for what cannot be a label and for
/// one that only the agent's configuration can take away.
pub(crate) fn label(
    world: &mut World,
    name: &NodeName,
    wanted: LabelNode,
) -> Result<NodeName, Problem> {
    let mut node = views::node::find(world, name)?.clone();
    let before = node.labels.clone();
    for (key, value) in &wanted.set {
        rules::label_key(key).map_err(Problem::invalid)?;
        rules::label_value(value).map_err(Problem::invalid)?;
        if wanted.remove.contains(key) {
            return Err(Problem::invalid(format!(
                "label {key} cannot be set and taken away at once: leave out {key}={value} or {key}-"
            )));
        }
    }
    for key in &wanted.remove {
        if node.labels.remove(key).is_none() && node.facts.labels.contains_key(key) {
            return Err(Problem::invalid(format!(
                "label {key} of node {name} comes from its agent's configuration: take it out of [labels] in \
                 agent.toml there, or set another value here, which wins"
            )));
        }
    }
    // What somebody sets by hand is no longer what a fleet file declares.
    let by_hand = wanted.set.keys().chain(&wanted.remove);
    by_hand.for_each(|key| {
        node.declared.remove(key);
    });
    node.labels.extend(wanted.set);
    check_size("the labels", &node.labels, MAX_LABELS)?;
    if node.labels != before {
        let all = labels_text(&node.all_labels());
        world.records.nodes.put(name.clone(), node);
        world.happened(&Happened::Node(OfNode::Labelled(name, all)));
    }
    Ok(name.clone())
}

/// Forgets a node: its key counts for nothing from then on, and the planner replaces what it had.
/// Answers with the node as it was last. Errors: 404; 409 while its agent is connected and has
/// instances, which nobody would stop any more.
pub(crate) fn remove(world: &mut World, name: &NodeName) -> Result<NodeView, Problem> {
    let view = views::node::one(world, name)?;
    if view.state == NodeState::Ready && !view.instances.is_empty() {
        let instances: Vec<String> = view.instances.iter().map(ToString::to_string).collect();
        return Err(Problem::conflict(format!(
            "node {name} is connected and has {}: empty it first with `berth node drain {name}`; or stop its \
             berth-agent and run `berth-agent stop-instances` on the machine",
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
    fn a_cordon_is_told_once_and_taking_it_off_ends_a_drain() {
        let mut w = world_with_service();
        let name: NodeName = "n1".parse().unwrap();
        w.records.take_changes().unwrap();
        cordon(&mut w, &name, true).unwrap();
        assert_eq!(w.records.take_changes().unwrap().len(), 2);
        cordon(&mut w, &name, true).unwrap();
        assert!(w.records.take_changes().unwrap().is_empty());
        super::super::drains::drain(&mut w, &name, &Default::default()).unwrap();
        let view = views::node::one(&w, &name).unwrap();
        assert_eq!(view.drain.map(|d| (d.total, d.moved)), Some((1, 0)));
        cordon(&mut w, &name, false).unwrap();
        let view = views::node::one(&w, &name).unwrap();
        assert_eq!((view.cordoned, view.drain), (false, None));
        assert_eq!(
            cordon(&mut w, &"x".parse().unwrap(), true)
                .unwrap_err()
                .status,
            404
        );
    }

    #[test]
    fn labels_are_set_and_taken_away_all_or_none() {
        let mut w = world_with_service();
        let name: NodeName = "n1".parse().unwrap();
        let mut node = w.records.nodes[&name].clone();
        node.facts.labels = [("rack".to_owned(), "7".to_owned())].into();
        w.records.nodes.put(name.clone(), node);
        let mut ask = |set: &[(&str, &str)], remove: &[&str]| {
            let wanted = LabelNode {
                set: set
                    .iter()
                    .map(|(k, v)| ((*k).into(), (*v).into()))
                    .collect(),
                remove: remove.iter().map(|k| (*k).to_owned()).collect(),
            };
            let answer = label(&mut w, &name, wanted);
            let all = labels_text(&w.records.nodes[&name].all_labels());
            answer.map(|_| all).map_err(|p| (p.status, p.detail))
        };
        let two = [("zone", "a"), ("rack", "8")];
        assert_eq!(ask(&two, &[]).unwrap(), "rack=8,zone=a");
        assert_eq!(ask(&[], &["zone", "rack", "never"]).unwrap(), "rack=7");
        let (status, detail) = ask(&[("a", "b")], &["rack"]).unwrap_err();
        assert_eq!(status, 422);
        assert!(detail.contains("agent.toml"), "{detail}");
        for bad in [("", "x"), ("a b", "x"), ("k", "a\nb"), ("k=", "v")] {
            assert_eq!(ask(&[bad], &[]).unwrap_err().0, 422, "{bad:?}");
        }
        assert_eq!(ask(&[("z", "1")], &["z"]).unwrap_err().0, 422);
        assert_eq!(ask(&[], &[]).unwrap(), "rack=7");
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
