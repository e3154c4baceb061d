//! Where an instance goes: filter the nodes, score what is left.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use berth_model::id::{NodeName, ServiceName};

use crate::view::{Room, View};
use crate::{Needs, NodeSeen, Session};

/// Why no node can take an instance: how many nodes were rejected for which reason.
pub(crate) type Rejections = BTreeMap<Rejection, u32>;

/// Why one node cannot take an instance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rejection {
    Taken,
    Cordoned,
    NotConnected,
    Lost,
    NoRuntime(String),
    NoLabel(String),
    NoGpu,
    NoMemory,
    NoCpu,
    NoDisk,
}

impl std::fmt::Display for Rejection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Taken => f.write_str("taken (exclusive)"),
            Self::Cordoned => f.write_str("cordoned"),
            Self::NotConnected => f.write_str("not connected"),
            Self::Lost => f.write_str("lost"),
            Self::NoRuntime(runtime) => write!(f, "without the {runtime} runtime"),
            Self::NoLabel(label) => write!(f, "without label {label}"),
            Self::NoGpu => f.write_str("no free GPU"),
            Self::NoMemory => f.write_str("too little free memory"),
            Self::NoCpu => f.write_str("too little free CPU"),
            Self::NoDisk => f.write_str("too little free disk"),
        }
    }
}

/// The best node for one more instance of a service's revision, or why there is none.
pub(crate) fn choose(
    view: &View<'_>,
    service: &ServiceName,
    revision: u32,
) -> Result<NodeName, Rejections> {
    let default = Needs::default();
    let needs = view
        .desired
        .needs
        .get(&(service.clone(), revision))
        .unwrap_or(&default);
    let mut rejections = Rejections::new();
    let mut best = None;
    for (name, node) in &view.observed.nodes {
        let Some(room) = view.rooms.get(name) else {
            continue;
        };
        let lost = view.lost.get(name).copied().unwrap_or(false);
        match reject(node, room, lost, needs) {
            Some(rejection) => *rejections.entry(rejection).or_default() += 1,
            None => {
                let score = score(service, node, room);
                // Strictly better only: among equals the first name wins, so plans are stable.
                if best.as_ref().is_none_or(|(top, _)| score > *top) {
                    best = Some((score, name.clone()));
                }
            }
        }
    }
    best.map(|(_, name)| name).ok_or(rejections)
}

fn reject(node: &NodeSeen, room: &Room, lost: bool, needs: &Needs) -> Option<Rejection> {
    let missing_label = needs
        .labels
        .iter()
        .find(|(key, value)| node.labels.get(*key) != Some(value));
    if lost {
        Some(Rejection::Lost)
    } else if node.session != Session::Connected {
        Some(Rejection::NotConnected)
    } else if let Some((key, value)) = missing_label {
        Some(Rejection::NoLabel(format!("{key}={value}")))
    } else if !node.runtimes.contains(&needs.runtime) {
        Some(Rejection::NoRuntime(needs.runtime.to_string()))
    } else if node.cordoned {
        Some(Rejection::Cordoned)
    } else if node.exclusive && room.held > 0 {
        Some(Rejection::Taken)
    } else if needs.resources.gpus > room.free.gpus {
        Some(Rejection::NoGpu)
    } else if needs.resources.memory_bytes > room.free.memory_bytes {
        Some(Rejection::NoMemory)
    } else if needs.resources.cpu_millis > room.free.cpu_millis {
        Some(Rejection::NoCpu)
    } else if needs.resources.disk_bytes > room.free.disk_bytes {
        Some(Rejection::NoDisk)
    } else {
        None
    }
}

/// Higher is better: few of the same service first (spread), then the tightest fit, so that large
/// gaps stay for large instances.
fn score(service: &ServiceName, node: &NodeSeen, room: &Room) -> (Reverse<u32>, Reverse<u64>) {
    let same = room.by_service.get(service).copied().unwrap_or(0);
    let slack = if node.exclusive {
        0
    } else {
        room.free.memory_bytes
    };
    (Reverse(same), Reverse(slack))
}
