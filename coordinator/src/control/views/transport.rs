//! How gateways reach instances on nodes.

use std::collections::BTreeSet;

use berth_model::api::StatusProblem;
use berth_model::event::Level;
use berth_model::relay::Transport;

use crate::control::world::World;

/// In one word, or in several while the fleet is on its way from one to the other.
pub(crate) fn word(world: &World) -> String {
    let mut words: BTreeSet<&str> = BTreeSet::new();
    match world.transport {
        Transport::Plain => drop(words.insert("plain")),
        Transport::Relay => drop(words.insert("relay")),
        Transport::Auto => {}
    }
    if clear(world) > 0 {
        words.insert("plain");
    }
    let mut nodes = world.records.nodes.values();
    if world.transport != Transport::Plain && nodes.any(|node| node.facts.relay.is_some()) {
        words.insert("relay");
    }
    if words.is_empty() {
        return "direct".to_owned();
    }
    words.into_iter().collect::<Vec<_>>().join(", ")
}

/// Instances on nodes that are dialled in the clear from other machines.
fn clear(world: &World) -> usize {
    let instances = world.records.instances.values();
    instances
        .filter(|record| record.place.node().is_some())
        .filter_map(|record| record.status.address)
        .filter(|address| !address.ip().is_loopback())
        .count()
}

/// Said aloud: everybody on the network between may read and send predictions.
pub(crate) fn problem(world: &World) -> Option<StatusProblem> {
    let clear = clear(world);
    if world.transport != Transport::Plain && clear == 0 {
        return None;
    }
    let what = match (world.transport, clear) {
        (Transport::Plain, _) => "transport = \"plain\": gateways reach instances".to_owned(),
        (_, n) => format!("gateways reach {n} instances, which were started so,"),
    };
    Some(StatusProblem {
        level: Level::Warning,
        subject: "transport".to_owned(),
        message: format!(
            "{what} in the clear, and so can everybody else on their network; with relays (the default) only \
             the fleet's gateways can"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::world_with_service;

    #[test]
    fn plain_is_loud_and_one_machine_is_direct() {
        let mut w = world_with_service();
        assert_eq!((word(&w).as_str(), problem(&w)), ("direct", None));
        let id = "web.1.0.1".parse().unwrap();
        let mut record = w.records.instances[&id].clone();
        record.status.address = Some("10.0.0.7:21000".parse().unwrap());
        w.records.instances.put(id, record);
        assert_eq!(word(&w), "plain");
        assert!(problem(&w).unwrap().message.contains("1 instances"));
        w.transport = Transport::Relay;
        assert_eq!(word(&w), "plain, relay");
        w.transport = Transport::Plain;
        assert_eq!(word(&w), "plain");
        assert!(problem(&w).unwrap().message.contains("\"plain\""));
    }
}
