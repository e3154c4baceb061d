//! From an instance's specification to what is started for it.
//!
//! [`launch_plan`] is a pure function of the specification and the [`Place`]: what the shim is to run, and
//! what must lie in the instance's work folder before ([`LaunchPlan::lay_out`] puts it there). Every runtime
//! goes through it and differs only in its place: in a container the package is at another path, and HOST is
//! every address. There is one file per kind of module.

mod custom;
mod environment;
mod job;
mod layout;
pub mod metrics;
mod python;
pub mod tf_serving;
mod transform;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::Path;

use berth_model::instance::InstanceSpec;
use berth_model::manifest::{ModuleKind, Preset};
use berth_model::node::RuntimeKind;
use berth_shim::spec::{LogSpec, ProcessSpec, SPEC_VERSION, Spec};

pub use job::{INPUT, OUTPUT};
pub use layout::Item;

/// Name of the module's process in logs, states and reasons.
pub const MODULE: &str = "module";

/// Name of the process that does pre- and post-processing.
pub const TRANSFORM: &str = "transform";

/// Where one start of an instance runs. Every path is as its processes see it.
#[derive(Debug, Clone)]
pub struct Place<'a> {
    /// Number of the start.
    pub start: u32,
    /// What the process that predictions go to is told as HOST.
    pub host: IpAddr,
    /// What it is told as PORT.
    pub port: u16,
    /// The module's own port, where [`needs_module_port`]: the transform has the other.
    pub module_port: Option<u16>,
    /// The unpacked package.
    pub package: &'a Path,
    /// The same folder as this program sees it: there it is looked whether a command is the package's own.
    pub unpacked: &'a Path,
    /// The instance's home.
    pub work: &'a Path,
    /// The virtual environment of `preset = "python"`; none where the system's packages are used, as in an image
    /// that has them.
    pub venv: Option<&'a Path>,
    /// `tensorflow_model_server`: a path, or a name to be looked up in PATH.
    pub model_server: &'a str,
    /// Berth's batch driver, where [`needs_driver`].
    pub driver: &'a str,
    /// Where TensorFlow Serving listens for gRPC.
    pub grpc: Grpc<'a>,
    /// Limits of its log on disk.
    pub log: LogSpec,
    /// PATH without the virtual environment; none: the system's usual one.
    pub path: Option<&'a str>,
}

/// Where TensorFlow Serving listens for gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grpc<'a> {
    /// On a unix socket: its TCP port would listen on every address, without any authentication.
    Socket(&'a Path),
    /// On a TCP port, as in a Pod, whose network is its own.
    Port(u16),
}

/// What is to be done for one start.
#[derive(Debug, Clone, PartialEq)]
pub struct LaunchPlan {
    /// What the shim is to run.
    pub spec: Spec,
    /// What must lie in the work folder before.
    pub layout: Vec<Item>,
}

/// A place that does not suit an instance.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// There are two servers and one port.
    #[error("its transform and its module need a port each, and only one was given out")]
    NoModulePort,
}

/// Whether the module gets a port of its own, as predictions go to its transform.
pub fn needs_module_port(spec: &InstanceSpec) -> bool {
    spec.manifest.transform.is_some() && (spec.task.is_none() || needs_driver(spec))
}

/// Whether Berth itself says how TensorFlow Serving is started. One that a manifest starts by a command of its own is
/// like a custom module.
pub fn is_tf_serving(spec: &InstanceSpec) -> bool {
    let module = &spec.manifest.module;
    module.kind == ModuleKind::TfServing && module.command.is_empty()
}

/// Whether it is a Python program with a `requirements.txt`.
pub fn is_python(spec: &InstanceSpec) -> bool {
    spec.manifest.module.preset == Some(Preset::Python)
}

/// Whether Berth's batch driver runs beside its module: it is a task, and its package has no command for that.
pub fn needs_driver(spec: &InstanceSpec) -> bool {
    spec.task.is_some() && job::own_command(spec).is_none()
}

/// Whether its requirements are installed into a virtual environment where it runs: they are not in an image.
pub fn needs_venv(spec: &InstanceSpec) -> bool {
    let module = &spec.manifest.module;
    let in_image = match spec.runtime {
        RuntimeKind::Process => false,
        // Built for the package.
        RuntimeKind::Docker => true,
        RuntimeKind::Kubernetes => module.image.is_some(),
    };
    is_python(spec) && !in_image
}

/// The path of the module's predictions, as in `/v1/models/NAME:predict` or `/invocations`.
pub fn prediction_path(spec: &InstanceSpec) -> String {
    match &spec.manifest.module.predict_path {
        Some(path) => path.clone(),
        None => format!("/v1/models/{}:predict", spec.id.slot.service),
    }
}

/// What to start, and with what around it.
pub fn launch_plan(spec: &InstanceSpec, place: &Place<'_>) -> Result<LaunchPlan, PlanError> {
    if let Some(process) = job::command(spec, place) {
        return Ok(LaunchPlan {
            spec: shim_spec(spec, place, vec![process]),
            layout: Vec::new(),
        });
    }
    let at = module_address(spec, place)?;
    let mut layout = Vec::new();
    let module = if is_tf_serving(spec) {
        layout = tf_serving::layout(spec, place);
        tf_serving::process(spec, place, at)
    } else {
        custom::process(spec, place, at)
    };
    let mut processes = vec![module];
    if let Some(transform) = &spec.manifest.transform {
        processes.push(transform::process(spec, place, transform, at));
    }
    if let Some(task) = &spec.task {
        job::drive(spec, task, place, at, &mut processes);
    }
    Ok(LaunchPlan {
        spec: shim_spec(spec, place, processes),
        layout,
    })
}

/// Processes of an instance as its shim's orders.
fn shim_spec(spec: &InstanceSpec, place: &Place<'_>, processes: Vec<ProcessSpec>) -> Spec {
    Spec {
        version: SPEC_VERSION,
        instance: spec.id.to_string(),
        start: place.start,
        processes,
        stop_grace_ms: spec.manifest.module.stop_grace.as_millis(),
        log: place.log,
        sandbox: None,
    }
}

/// Where a process listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Address {
    host: IpAddr,
    port: u16,
}

/// Where the module listens. Behind a transform, it is nobody's but the transform's.
fn module_address(spec: &InstanceSpec, place: &Place<'_>) -> Result<Address, PlanError> {
    if !needs_module_port(spec) {
        return Ok(Address {
            host: place.host,
            port: place.port,
        });
    }
    let port = place.module_port.ok_or(PlanError::NoModulePort)?;
    Ok(Address {
        host: MODULE_HOST,
        port,
    })
}

/// HOST of a module behind a transform.
pub const MODULE_HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
