//! Emptying nodes: what is asked for, and how the time until the deadline is counted.

use berth_model::api::DrainNode;
use berth_model::id::NodeName;
use berth_model::instance::Phase;
use berth_model::node::NodeDrain;
use berth_model::problem::Problem;
use berth_model::time::{Monotonic, Span};
use berth_plan::DrainSeen;

use crate::control::agent::AgentName;
use crate::control::events::{Happened, OfNode};
use crate::control::views;
use crate::control::world::World;

const DEFAULT_DEADLINE: Span = Span::secs(3_600);
const MAX_DEADLINE: Span = Span::secs(30 * 86_400);
/// How often the drains are looked at.
const LOOK_EVERY: Span = Span::secs(1);
/// How often what is left until a deadline is written down: what a coordinator's end may cost.
const NOTE_EVERY: Span = Span::secs(10);

/// Begins to empty a node, or changes the terms of it; the same again changes nothing. Errors: 404; 422
/// for a deadline that cannot be.
pub(crate) fn drain(
    world: &mut World,
    name: &NodeName,
    wanted: &DrainNode,
) -> Result<NodeName, Problem> {
    let mut node = views::node::find(world, name)?.clone();
    if let Some(deadline) = wanted.deadline.filter(|d| *d > MAX_DEADLINE) {
        return Err(Problem::invalid(format!(
            "a node cannot be drained over {deadline}: choose at most {MAX_DEADLINE}, or cordon it"
        )));
    }
    let before = node.drain.take();
    let is_new = before.is_none();
    let mut drain = before.clone().unwrap_or_else(|| NodeDrain {
        started: world.wall,
        total: left_on(world, name),
        left: DEFAULT_DEADLINE,
        force: false,
        drained: None,
    });
    if drain.drained.is_none() {
        drain.force |= wanted.force;
        drain.left = wanted.deadline.unwrap_or(drain.left);
        if is_new || wanted.deadline.is_some() {
            let now = world.now;
            world.live.drains.noted.insert(name.clone(), now);
        }
    }
    if before.as_ref() != Some(&drain) {
        world.happened(&Happened::Node(OfNode::Draining(name, &drain)));
    }
    node.cordoned = true;
    node.drain = Some(drain);
    world.records.nodes.put(name.clone(), node);
    Ok(name.clone())
}

/// Instances and tasks on a node that have not stopped.
pub(crate) fn left_on(world: &World, name: &NodeName) -> u32 {
    let records = &world.records.instances;
    let there = records.index().of(&AgentName::Node(name.clone()));
    let held = there
        .filter_map(|id| records.get(id))
        .filter(|r| r.status.phase != Phase::Stopped)
        .count();
    u32::try_from(held).unwrap_or(u32::MAX)
}

/// When a drain's deadline is over, by the clock of this run.
fn due(world: &World, name: &NodeName, drain: &NodeDrain) -> Monotonic {
    let noted = world.live.drains.noted.get(name).copied();
    noted.unwrap_or(world.now).after(drain.left.0)
}

/// A node's drain as the planner sees it.
pub(crate) fn seen(world: &World, name: &NodeName, drain: &NodeDrain) -> DrainSeen {
    DrainSeen {
        due: due(world, name, drain),
        force: drain.force,
        drained: drain.drained.is_some(),
    }
}

/// What is left until a drain's deadline.
pub(crate) fn left(world: &World, name: &NodeName, drain: &NodeDrain) -> Span {
    Span(due(world, name, drain).since(world.now))
}

/// Writes down now and then how much of each deadline is left, so that another coordinator goes on
/// counting from there. The wall clock has no part in it: it may jump.
pub(crate) fn count_down(world: &mut World) {
    let now = world.now;
    if now < world.live.drains.looked.after(LOOK_EVERY.0) {
        return;
    }
    world.live.drains.looked = now;
    let nodes = world.records.nodes.values();
    let running: Vec<NodeName> = nodes
        .filter(|n| n.drain.as_ref().is_some_and(|d| d.drained.is_none()))
        .map(|n| n.name.clone())
        .collect();
    world.live.drains.noted.retain(|n, _| running.contains(n));
    for name in running {
        let since = *world.live.drains.noted.entry(name.clone()).or_insert(now);
        let Some(mut node) = world.records.nodes.get(&name).cloned() else {
            continue;
        };
        let Some(drain) = node.drain.as_mut().filter(|d| d.left.as_millis() > 0) else {
            continue;
        };
        let spent = now.since(since);
        if spent < NOTE_EVERY.0 && spent < drain.left.0 {
            continue;
        }
        drain.left = Span(drain.left.0.saturating_sub(spent));
        world.live.drains.noted.insert(name.clone(), now);
        world.records.nodes.put(name, node);
    }
}

/// Nothing is left on the node.
pub(crate) fn drained(world: &mut World, name: &NodeName) {
    let Some(mut node) = world.records.nodes.get(name).cloned() else {
        return;
    };
    let Some(drain) = node.drain.as_mut() else {
        return;
    };
    drain.drained = Some(world.wall);
    world.records.nodes.put(name.clone(), node);
    world.happened(&Happened::Node(OfNode::Drained(name)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::world_with_service;

    fn n1() -> NodeName {
        "n1".parse().unwrap()
    }

    fn ask(deadline_s: u64, force: bool) -> DrainNode {
        DrainNode {
            deadline: Some(Span::secs(deadline_s)),
            force,
        }
    }

    fn pass(world: &mut World, seconds: u64) {
        world.now = world.now.after(Span::secs(seconds).0);
        count_down(world);
    }

    fn record(world: &World) -> NodeDrain {
        world.records.nodes["n1"].drain.clone().unwrap()
    }

    #[test]
    fn the_same_again_changes_nothing_and_other_terms_are_taken() {
        let mut w = world_with_service();
        drain(&mut w, &n1(), &DrainNode::default()).unwrap();
        let first = record(&w);
        assert_eq!((first.total, first.left), (1, DEFAULT_DEADLINE));
        assert!(w.records.nodes["n1"].cordoned);
        w.records.take_changes().unwrap();
        drain(&mut w, &n1(), &DrainNode::default()).unwrap();
        assert!(w.records.take_changes().unwrap().is_empty());
        drain(&mut w, &n1(), &ask(60, true)).unwrap();
        assert_eq!((record(&w).left, record(&w).force), (Span::secs(60), true));
        let too_long = drain(&mut w, &n1(), &ask(40 * 86_400, false)).unwrap_err();
        assert_eq!(too_long.status, 422);
        let unknown = drain(&mut w, &"n2".parse().unwrap(), &ask(1, false)).unwrap_err();
        assert_eq!(unknown.status, 404);
    }

    #[test]
    fn the_deadline_is_counted_on_the_clock_that_does_not_jump() {
        let mut w = world_with_service();
        drain(&mut w, &n1(), &ask(100, false)).unwrap();
        let due = seen(&w, &n1(), &record(&w)).due;
        for years in [1, -2] {
            let year = 365 * 86_400_000_i64;
            w.wall.0 = w.wall.0.saturating_add_signed(years * year);
            pass(&mut w, 15);
            assert_eq!(seen(&w, &n1(), &record(&w)).due, due);
        }
        assert_eq!(record(&w).left, Span::secs(70));
        // Another coordinator, on a machine whose clocks say something else.
        w.live.drains = Default::default();
        w.now = Monotonic(5);
        w.live.drains.looked = Monotonic(0);
        pass(&mut w, 1);
        assert_eq!(left(&w, &n1(), &record(&w)), Span::secs(70));
        pass(&mut w, 70);
        assert_eq!(record(&w).left, Span::secs(0));
        let due = seen(&w, &n1(), &record(&w)).due;
        pass(&mut w, 70);
        assert_eq!(seen(&w, &n1(), &record(&w)).due, due);
    }
}
