//! The package's own server: its command, told where to listen.

use berth_model::instance::InstanceSpec;
use berth_shim::spec::ProcessSpec;

use super::environment::{argv, environment};
use super::{Address, MODULE, Place};

/// The process of `[module] command`.
pub(super) fn process(spec: &InstanceSpec, place: &Place<'_>, at: Address) -> ProcessSpec {
    let env = environment(spec, place, at);
    ProcessSpec {
        name: MODULE.to_owned(),
        argv: argv(&spec.manifest.module.command, &env, place),
        env,
        cwd: place.package.to_owned(),
        primary: true,
    }
}
