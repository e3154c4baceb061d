//! `[transform]`: the second named process of an instance. It listens where the gateway dials, and calls the module.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use berth_model::instance::InstanceSpec;
use berth_model::manifest::Transform;
use berth_shim::spec::ProcessSpec;

use super::environment::{argv, environment};
use super::{Address, Place, TRANSFORM, prediction_path};

/// The variable that names the module's prediction URL.
pub(super) const PREDICTOR_URL: &str = "BERTH_PREDICTOR_URL";

/// The process of `[transform] command`; `module` is where the module listens.
pub(super) fn process(
    spec: &InstanceSpec,
    place: &Place<'_>,
    transform: &Transform,
    module: Address,
) -> ProcessSpec {
    let at = Address {
        host: place.host,
        port: place.port,
    };
    let mut env = environment(spec, place, at);
    env.insert(PREDICTOR_URL.to_owned(), predictor_url(spec, module));
    ProcessSpec {
        name: TRANSFORM.to_owned(),
        argv: argv(&transform.command, &env, place),
        env,
        cwd: place.package.to_owned(),
        primary: true,
    }
}

/// Where predictions of the module at an address are posted. Every address is dialled at loopback.
pub(super) fn predictor_url(spec: &InstanceSpec, at: Address) -> String {
    format!("http://{}{}", dialled(at), prediction_path(spec))
}

/// Where a process of the same instance is dialled.
pub(super) fn dialled(at: Address) -> SocketAddr {
    let host: IpAddr = match at.host {
        IpAddr::V4(host) if host.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(host) if host.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        host => host,
    };
    SocketAddr::new(host, at.port)
}
