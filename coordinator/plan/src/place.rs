//! Where an instance goes: filter the nodes, score what is left.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use berth_model::id::ServiceName;
use berth_model::node::RuntimeKind;
use berth_model::place::Place;

use crate::view::{Room, View};
use crate::{ClusterSeen, Needs, NodeSeen, Session};

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
    BrokenRuntime(String),
    NoLabel(String),
    NoModule(String),
    Unreachable,
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
            Self::BrokenRuntime(runtime) => write!(f, "whose {runtime} does not work now"),
            Self::NoLabel(label) => write!(f, "without label {label}"),
            Self::NoModule(module) => write!(f, "without {module}"),
            Self::Unreachable => f.write_str("unreachable"),
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
) -> Result<Place, Rejections> {
    let default = Needs::default();
    let needs = view
        .desired
        .needs
        .get(&(service.clone(), revision))
        .unwrap_or(&default);
    if needs.runtime == RuntimeKind::Kubernetes {
        return cluster(view, service, needs);
    }
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
    best.map(|(_, name)| Place::Node(name)).ok_or(rejections)
}

/// The cluster that has the fewest instances of the service. Room in it is the cluster's own business.
fn cluster(view: &View<'_>, service: &ServiceName, needs: &Needs) -> Result<Place, Rejections> {
    let mut rejections = Rejections::new();
    let mut best = None;
    for (name, cluster) in &view.observed.clusters {
        if let Some(rejection) = reject_cluster(cluster, needs) {
            *rejections.entry(rejection).or_default() += 1;
            continue;
        }
        let place = Place::Cluster(name.clone());
        let same = view
            .of(service)
            .filter(|(_, p)| p.is_live() && p.place == place)
            .count();
        if best.as_ref().is_none_or(|(least, _)| same < *least) {
            best = Some((same, place));
        }
    }
    best.map(|(_, place)| place).ok_or(rejections)
}

fn reject_cluster(cluster: &ClusterSeen, needs: &Needs) -> Option<Rejection> {
    let lacks = |(key, value): &(&String, &String)| cluster.labels.get(*key) != Some(*value);
    match needs.labels.iter().find(lacks) {
        Some((key, value)) => Some(Rejection::NoLabel(format!("{key}={value}"))),
        None if cluster.unreachable.is_some() => Some(Rejection::Unreachable),
        None => None,
    }
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
    } else if node.broken.contains(&needs.runtime) {
        Some(Rejection::BrokenRuntime(needs.runtime.to_string()))
    } else if !node.runtimes.contains(&needs.runtime) {
        Some(Rejection::NoRuntime(needs.runtime.to_string()))
    } else if let Some(module) = missing_module(node, needs) {
        Some(Rejection::NoModule(module))
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

/// What the process runtime needs and the node has not; in containers the image has it.
fn missing_module(node: &NodeSeen, needs: &Needs) -> Option<String> {
    let module = needs.module.as_ref()?;
    (needs.runtime == RuntimeKind::Process && !node.modules.contains(module)).then(|| match module
        .as_str()
    {
        "tf-serving" => "tensorflow_model_server".to_owned(),
        "python" => "python3".to_owned(),
        other => other.to_owned(),
    })
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
