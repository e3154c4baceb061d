//! Why a place cannot take an instance.

use std::collections::BTreeMap;

use berth_model::node::RuntimeKind;
use berth_model::resources::Resources;

use crate::machines::{Profile, Standing};
use crate::{ClusterSeen, Needs};

/// How many places were rejected for which reason.
pub(crate) type Rejections = BTreeMap<Rejection, u32>;

/// Why one place cannot take an instance. Of several reasons it is the first that holds, in this order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rejection {
    /// The node's lease is over.
    Lost,
    /// The node's agent is not there.
    NotConnected,
    /// It lacks a label, written `key=value`, that was asked for.
    NoLabel(String),
    /// The node has the runtime, and it does not work now.
    BrokenRuntime(String),
    /// The node does not have the runtime.
    NoRuntime(String),
    /// The node does not have a program that the module needs.
    NoModule(String),
    /// The node takes no new instances.
    Cordoned,
    /// The node's disk is full, and it does not have the package yet.
    DiskFull,
    /// The node takes one instance at a time and has one.
    Taken,
    /// The node has fewer GPUs than were asked for.
    NoGpu,
    /// The node has GPUs enough, and others use them.
    GpusTaken,
    /// Too little memory is left.
    NoMemory,
    /// Too little processor time is left.
    NoCpu,
    /// Too little disk space is left.
    NoDisk,
    /// The cluster does not answer.
    Unreachable,
}

impl std::fmt::Display for Rejection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lost => f.write_str("lost"),
            Self::NotConnected => f.write_str("not connected"),
            Self::NoLabel(label) => write!(f, "without label {label}"),
            Self::BrokenRuntime(runtime) => write!(f, "whose {runtime} does not work now"),
            Self::NoRuntime(runtime) => write!(f, "without the {runtime} runtime"),
            Self::NoModule(module) => write!(f, "without {module}"),
            Self::Cordoned => f.write_str("cordoned"),
            Self::DiskFull => f.write_str("whose disk is full"),
            Self::Taken => f.write_str("taken (exclusive)"),
            Self::NoGpu => f.write_str("no GPU"),
            Self::GpusTaken => f.write_str("no free GPU"),
            Self::NoMemory => f.write_str("too little free memory"),
            Self::NoCpu => f.write_str("too little free CPU"),
            Self::NoDisk => f.write_str("too little free disk"),
            Self::Unreachable => f.write_str("unreachable"),
        }
    }
}

/// What rejects every node of a profile, whatever room it has.
pub(crate) fn by_profile(profile: &Profile, needs: &Needs) -> Option<Rejection> {
    match profile.standing {
        Standing::Lost => return Some(Rejection::Lost),
        Standing::Away => return Some(Rejection::NotConnected),
        Standing::Ready => {}
    }
    if let Some(label) = missing_label(&profile.labels, needs) {
        Some(Rejection::NoLabel(label))
    } else if profile.broken.contains(&needs.runtime) {
        Some(Rejection::BrokenRuntime(needs.runtime.to_string()))
    } else if !profile.runtimes.contains(&needs.runtime) {
        Some(Rejection::NoRuntime(needs.runtime.to_string()))
    } else if let Some(module) = missing_module(profile, needs) {
        Some(Rejection::NoModule(module))
    } else if profile.cordoned {
        Some(Rejection::Cordoned)
    } else {
        None
    }
}

/// What rejects a node for what is left of it: `free` of the GPUs that it has.
pub(crate) fn by_room(free: &Resources, gpus: u32, wanted: &Resources) -> Option<Rejection> {
    if wanted.gpus > gpus {
        Some(Rejection::NoGpu)
    } else if wanted.gpus > free.gpus {
        Some(Rejection::GpusTaken)
    } else if wanted.memory_bytes > free.memory_bytes {
        Some(Rejection::NoMemory)
    } else if wanted.cpu_millis > free.cpu_millis {
        Some(Rejection::NoCpu)
    } else if wanted.disk_bytes > free.disk_bytes {
        Some(Rejection::NoDisk)
    } else {
        None
    }
}

pub(crate) fn by_cluster(cluster: &ClusterSeen, needs: &Needs) -> Option<Rejection> {
    match missing_label(&cluster.labels, needs) {
        Some(label) => Some(Rejection::NoLabel(label)),
        None if cluster.unreachable.is_some() => Some(Rejection::Unreachable),
        None => None,
    }
}

fn missing_label(labels: &BTreeMap<String, String>, needs: &Needs) -> Option<String> {
    let lacks = |(key, value): &(&String, &String)| labels.get(*key) != Some(*value);
    let missing = needs.labels.iter().find(lacks);
    missing.map(|(key, value)| format!("{key}={value}"))
}

/// What the process runtime needs and the node has not; in containers the image has it.
fn missing_module(profile: &Profile, needs: &Needs) -> Option<String> {
    let module = needs.module.as_ref()?;
    let program = || match module.as_str() {
        "tf-serving" => "tensorflow_model_server".to_owned(),
        "python" => "python3".to_owned(),
        other => other.to_owned(),
    };
    let missing = needs.runtime == RuntimeKind::Process && !profile.modules.contains(module);
    missing.then(program)
}
