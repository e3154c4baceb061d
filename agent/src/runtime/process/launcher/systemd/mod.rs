//! The shim as a transient unit of systemd, one for each start. The shim keeps root's credentials inside the unit's
//! sandbox and drops what it runs to the unit's dynamic user, which it knows by the owner of the unit's runtime folder.

mod bus;
mod properties;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use berth_model::node::Isolation;
use berth_shim::sandbox::{Sandbox, User};

use super::{Armed, Ground, Launcher, Record, Upcoming, egress};
use crate::runtime::process::io_error;
use crate::runtime::process::launch::ERRORS_FILE;
use crate::runtime::{Confinement, Launch, RuntimeError};

/// Between looks at whether a unit that has not reported is still there.
const LOOK: Duration = Duration::from_millis(100);

/// Launches shims as units.
#[derive(Debug)]
pub(in crate::runtime::process) struct Systemd {
    ground: Ground,
}

/// The first version that has all that a unit is made of.
const OLDEST: u32 = 248;

/// Why units cannot be had, if they cannot. Errors: systemd is there and does not answer.
pub(super) fn unavailable() -> Result<Option<String>, RuntimeError> {
    if !Path::new("/run/systemd/system").exists() {
        return Ok(Some("this machine was not booted with systemd".to_owned()));
    }
    if !rustix::process::geteuid().is_root() {
        return Ok(Some("the agent does not run as root".to_owned()));
    }
    if !Path::new(bus::SOCKET).exists() {
        let why = format!("there is no D-Bus at {}: install dbus", bus::SOCKET);
        return Ok(Some(why));
    }
    Ok(too_old(&bus::version()?))
}

/// As in "252.39-1~deb12u1".
fn too_old(version: &str) -> Option<String> {
    let digits = version
        .trim_start_matches('v')
        .split(|c: char| !c.is_ascii_digit())
        .next();
    let number: u32 = digits.and_then(|digits| digits.parse().ok()).unwrap_or(0);
    (number < OLDEST).then(|| format!("systemd {version} is too old: {OLDEST} is needed"))
}

impl Systemd {
    pub(super) fn new(ground: Ground) -> Self {
        Self { ground }
    }
}

/// Why what an instance dials is not looked at, if it is not.
fn unfiltered(host: IpAddr) -> Option<String> {
    if !host.is_loopback() {
        return Some(format!(
            "instances listen on {host}, and whoever comes from another machine would be kept out, too"
        ));
    }
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    (!unified).then(|| "systemd filters only where all control groups are of version 2".to_owned())
}
/// The name of a start's unit.
fn unit(launch: &Launch) -> String {
    let folder = blake3::hash(launch.dir.as_os_str().as_encoded_bytes());
    let fits = |c: char| {
        if c.is_ascii_alphanumeric() || "-_.".contains(c) {
            c
        } else {
            '_'
        }
    };
    let instance: String = launch.spec.instance.chars().map(fits).take(150).collect();
    let start = launch.spec.start;
    format!(
        "berth-instance-{instance}-{start}-{}.service",
        &folder.to_hex()[..8]
    )
}

impl Launcher for Systemd {
    fn arm(&self, launch: &Launch) -> Result<Armed, RuntimeError> {
        let wanted = launch.confinement.clone().unwrap_or_default();
        Ok(Armed {
            sandbox: Some(Sandbox {
                user: Some(User::OwnerOf {
                    variable: properties::USERS_FOLDER.to_owned(),
                }),
                own: wanted.writable,
                ..Sandbox::default()
            }),
            record: Some(Record::Systemd { unit: unit(launch) }),
        })
    }

    fn launch(
        &self,
        shim: &Path,
        launch: &Launch,
        _: &Armed,
    ) -> Result<Box<dyn Upcoming>, RuntimeError> {
        let none = Confinement::default();
        let wanted = launch.confinement.as_ref().unwrap_or(&none);
        let host = wanted.host.unwrap_or(Ipv4Addr::LOCALHOST.into());
        let filter = match unfiltered(host) {
            Some(_) => None,
            None => {
                let resolvers = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
                Some(egress::resolve(&wanted.egress, &resolvers)?)
            }
        };
        let errors = launch.dir.join(ERRORS_FILE);
        std::fs::File::create(&errors).map_err(io_error(format!("make {}", errors.display())))?;
        let unit = unit(launch);
        let properties = properties::properties(&properties::Wanted {
            ground: &self.ground,
            unit: &unit,
            shim,
            launch,
            confinement: wanted,
            filter: filter.as_deref(),
        });
        bus::start(&unit, properties)?;
        Ok(Box::new(Started {
            unit,
            looked: Instant::now(),
        }))
    }

    fn isolation(&self, host: IpAddr) -> Isolation {
        let enforced = [
            "privileges",
            "user",
            "files",
            "memory",
            "cpu",
            "tasks",
            "devices",
            "system calls",
        ];
        let mut isolation = Isolation {
            launcher: "systemd".to_owned(),
            enforced: enforced.map(str::to_owned).to_vec(),
            missing: Vec::new(),
        };
        match unfiltered(host) {
            None => isolation.enforced.push("egress".to_owned()),
            Some(why) => isolation.missing.push(format!("egress: {why}")),
        }
        isolation
    }
}

struct Started {
    unit: String,
    looked: Instant,
}

impl Upcoming for Started {
    fn ended(&mut self) -> Result<Option<String>, RuntimeError> {
        if self.looked.elapsed() < LOOK {
            return Ok(None);
        }
        self.looked = Instant::now();
        bus::ended(&self.unit)
    }

    fn abandon(&mut self) {
        // What remains is cleared by the record; the error that is being returned matters more.
        let _ = clear(&self.unit);
    }

    fn child(self: Box<Self>) -> Option<Child> {
        None
    }
}

/// Kills what is left of a unit, and has systemd forget it.
pub(super) fn clear(unit: &str) -> Result<(), RuntimeError> {
    bus::clear(unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::conformance;

    #[test]
    fn versions_are_compared_by_their_number() {
        assert_eq!(too_old("252.39-1~deb12u1"), None);
        assert_eq!(too_old("v257"), None);
        for old in ["245.4-4ubuntu3", "239 (239-82.el8)", ""] {
            assert!(too_old(old).is_some(), "{old}");
        }
    }

    #[test]
    fn a_unit_is_named_after_its_instance_and_its_folder() {
        let mut launch = conformance::shell(Path::new("/data/starts/1"), "exit 0");
        let one = unit(&launch);
        assert!(
            one.starts_with("berth-instance-conformance.1.0.1-1-"),
            "{one}"
        );
        launch.dir = "/other/starts/1".into();
        assert_ne!(unit(&launch), one);
        launch.spec.instance = format!("a/b {}", "x".repeat(300));
        let long = unit(&launch);
        assert!(
            long.len() < 250 && long.starts_with("berth-instance-a_b_x"),
            "{long}"
        );
    }
}
