//! A start as properties of a transient unit.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use zbus::Variant;

use super::super::egress::Network;
use super::super::{Ground, gpu_devices};
use super::bus::Properties;
use crate::runtime::process::launch::ERRORS_FILE;
use crate::runtime::{Confinement, Launch};

/// Variable of the shim's environment with the unit's runtime folder, which belongs to the unit's user.
pub(super) const USERS_FOLDER: &str = "RUNTIME_DIRECTORY";

/// What the shim may do as root inside the sandbox: become its module's user, give it its folders, signal and see its
/// processes. Modules have none of it.
const CAPABILITIES: u64 = 1 << 0 // CAP_CHOWN
    | 1 << 1 // CAP_DAC_OVERRIDE
    | 1 << 5 // CAP_KILL
    | 1 << 6 // CAP_SETGID
    | 1 << 7 // CAP_SETUID
    | 1 << 8 // CAP_SETPCAP
    | 1 << 19; // CAP_SYS_PTRACE

/// Sockets of what starts processes for others: the system's bus, systemd's own, and container engines. Whom they obey is
/// set up elsewhere, and a module has nothing to ask of them.
const MANAGERS: [&str; 7] = [
    "/run/dbus",
    "/run/systemd/private",
    "/run/docker.sock",
    "/run/docker",
    "/run/containerd",
    "/run/podman",
    "/run/crio",
];

/// All that a unit depends on.
pub(super) struct Wanted<'a> {
    pub(super) ground: &'a Ground,
    pub(super) unit: &'a str,
    pub(super) shim: &'a Path,
    pub(super) launch: &'a Launch,
    pub(super) confinement: &'a Confinement,
    /// What may be dialled; none: not looked at.
    pub(super) filter: Option<&'a [Network]>,
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The unit's properties.
pub(super) fn properties(wanted: &Wanted<'_>) -> Properties {
    let mut all = service(wanted);
    all.extend(privileges());
    all.extend(files(wanted));
    all.extend(devices(wanted.confinement.resources.gpus > 0));
    all.extend(limits(wanted));
    if let Some(filter) = wanted.filter {
        all.extend(network(filter));
    }
    all
}

/// What is run, and how it ends.
fn service(wanted: &Wanted<'_>) -> Properties {
    let spec = &wanted.launch.spec;
    let dir = text(&wanted.launch.dir);
    let shim = text(wanted.shim);
    let argv = ["run", "--dir"].map(str::to_owned);
    let argv = [vec![shim.clone()], argv.to_vec(), vec![dir.clone()]].concat();
    let flags = ["no-setuid", "no-env-expand"].map(str::to_owned).to_vec();
    let path = std::env::var("PATH").map(|path| format!("PATH={path}"));
    let errors = text(&wanted.launch.dir.join(ERRORS_FILE));
    // The shim orders the end by itself; systemd is patient enough for that when the machine is shut down.
    let patience = spec
        .stop_grace_ms
        .saturating_add(10_000)
        .saturating_mul(1000);
    let stem = wanted.unit.trim_end_matches(".service").to_owned();
    vec![
        (
            "Description",
            format!("Berth instance {}, start {}", spec.instance, spec.start).into(),
        ),
        ("Slice", "berth-instances.slice".into()),
        ("Type", "exec".into()),
        ("ExecStartEx", vec![(shim, argv, flags)].into()),
        (
            "Environment",
            path.into_iter().collect::<Vec<String>>().into(),
        ),
        ("WorkingDirectory", "/".into()),
        ("StandardOutput", "null".into()),
        ("StandardErrorFileToAppend", errors.into()),
        ("KillMode", "mixed".into()),
        ("OOMPolicy", "continue".into()),
        // The module is what should go; the shim raises it to 0.
        ("OOMScoreAdjust", (-500i32).into()),
        ("TimeoutStopUSec", patience.into()),
        ("RuntimeDirectory", vec![stem].into()),
        ("RuntimeDirectoryMode", 0o700u32.into()),
    ]
}

/// What it may do.
fn privileges() -> Properties {
    let texts = |words: &[&str]| -> Vec<String> { words.iter().map(ToString::to_string).collect() };
    let families = texts(&["AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"]);
    let yes = [
        "DynamicUser",
        "NoNewPrivileges",
        "PrivateTmp",
        "PrivateIPC",
        "ProtectClock",
        "ProtectControlGroups",
        "ProtectHostname",
        "ProtectKernelLogs",
        "ProtectKernelModules",
        "ProtectKernelTunables",
        "RestrictRealtime",
        "RestrictSUIDSGID",
        "LockPersonality",
    ];
    let mut all: Properties = yes.into_iter().map(|name| (name, true.into())).collect();
    all.extend([
        ("ProtectProc", Variant::from("invisible")),
        ("CapabilityBoundingSet", CAPABILITIES.into()),
        // None of them may be made.
        ("RestrictNamespaces", 0u64.into()),
        ("RestrictAddressFamilies", (true, families).into()),
        ("SystemCallArchitectures", texts(&["native"]).into()),
        (
            "SystemCallFilter",
            (true, texts(&["@system-service"])).into(),
        ),
        // EPERM: a program that tries something odd goes on without.
        ("SystemCallErrorNumber", 1i32.into()),
    ]);
    all
}

/// What it sees of the file system: the machine's, read-only, without homes and without the agent's data but its own.
fn files(wanted: &Wanted<'_>) -> Properties {
    let dir = &wanted.launch.dir;
    let bind = |path: &Path| (text(path), text(path), false, 0u64);
    let own: Vec<&PathBuf> = wanted.confinement.writable.iter().collect();
    let written = || own.iter().copied().chain([dir]);
    let shim = wanted.shim.to_owned();
    let further = wanted.ground.readable.iter().filter(|path| path.exists());
    let read = wanted
        .confinement
        .readable
        .iter()
        .chain(further)
        .chain([&shim]);
    let mut empty = vec![("/dev/shm".to_owned(), "mode=1777,nosuid,nodev".to_owned())];
    for hidden in hidden(wanted.ground) {
        empty.push((text(&hidden), "ro,mode=0755".to_owned()));
    }
    // "-": where there is such a thing.
    let unreachable: Vec<String> = MANAGERS.iter().map(|path| format!("-{path}")).collect();
    vec![
        ("ProtectSystem", "strict".into()),
        ("ProtectHome", "tmpfs".into()),
        ("TemporaryFileSystem", empty.into()),
        ("InaccessiblePaths", unreachable.into()),
        (
            "BindPaths",
            written().map(|path| bind(path)).collect::<Vec<_>>().into(),
        ),
        (
            "BindReadOnlyPaths",
            read.map(|path| bind(path)).collect::<Vec<_>>().into(),
        ),
        (
            "ReadWritePaths",
            written().map(|path| text(path)).collect::<Vec<_>>().into(),
        ),
    ]
}

/// The folders that are empty for an instance, none of them in another.
fn hidden(ground: &Ground) -> Vec<PathBuf> {
    let own = ["/etc/berth", "/var/lib/berth"].map(PathBuf::from);
    let all = own.iter().chain(&ground.hidden).chain([&ground.data]);
    let mut all: Vec<PathBuf> = all.filter(|path| path.is_dir()).cloned().collect();
    all.sort();
    // Sorted, a folder comes before what is in it.
    all.dedup_by(|later, earlier| later.starts_with(earlier));
    all
}

/// Its devices: none but the harmless ones, and GPUs for those who asked for some.
fn devices(gpus: bool) -> Properties {
    let mut all: Properties = vec![
        ("PrivateDevices", (!gpus).into()),
        ("DevicePolicy", "closed".into()),
    ];
    if gpus {
        let allowed: Vec<(String, String)> = gpu_devices(Path::new("/dev"))
            .iter()
            .map(|path| (text(path), "rw".to_owned()))
            .collect();
        all.push(("DeviceAllow", allowed.into()));
    }
    all
}

/// What it may use.
fn limits(wanted: &Wanted<'_>) -> Properties {
    let resources = wanted.confinement.resources;
    let mut all: Properties = vec![
        ("TasksMax", wanted.ground.tasks.into()),
        ("MemoryAccounting", true.into()),
    ];
    if resources.memory_bytes > 0 {
        all.push(("MemoryMax", resources.memory_bytes.into()));
        all.push(("MemorySwapMax", 0u64.into()));
    }
    if let Some(deadline) = wanted.confinement.deadline {
        let micros = u64::try_from(deadline.as_micros()).unwrap_or(u64::MAX);
        all.push(("RuntimeMaxUSec", micros.into()));
    }
    if resources.cpu_millis > 0 {
        // Microseconds in a second.
        all.push((
            "CPUQuotaPerSecUSec",
            resources.cpu_millis.saturating_mul(1000).into(),
        ));
    }
    all
}

/// What it may dial, and be dialled from: this machine, and what its manifest says.
fn network(filter: &[Network]) -> Properties {
    const INET: i32 = 2;
    const INET6: i32 = 10;
    let encode = |address: IpAddr, bits: u8| match address {
        IpAddr::V4(address) => (INET, address.octets().to_vec(), u32::from(bits)),
        IpAddr::V6(address) => (INET6, address.octets().to_vec(), u32::from(bits)),
    };
    let any = [IpAddr::from([0u8; 4]), IpAddr::from([0u8; 16])].map(|address| encode(address, 0));
    let local = [
        encode(IpAddr::from([127, 0, 0, 0]), 8),
        encode(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST), 128),
    ];
    let allowed = filter
        .iter()
        .map(|network| encode(network.address, network.bits));
    let allowed: Vec<(i32, Vec<u8>, u32)> = local.into_iter().chain(allowed).collect();
    vec![
        ("IPAddressDeny", any.to_vec().into()),
        ("IPAddressAllow", allowed.into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_a_hidden_folder_is_hidden_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for path in ["data/node-1", "data-2", "other"] {
            std::fs::create_dir_all(at(path)).unwrap();
        }
        let mut ground = Ground {
            data: at("data/node-1"),
            hidden: vec![at("other"), at("absent")],
            readable: Vec::new(),
            tasks: 1,
            users: (1, 1),
        };
        let mine = |ground: &Ground| {
            let mut found = hidden(ground);
            found.retain(|path| path.starts_with(dir.path()));
            found
        };
        assert_eq!(mine(&ground), [at("data/node-1"), at("other")]);
        ground.hidden.extend([at("data"), at("data-2")]);
        assert_eq!(mine(&ground), [at("data"), at("data-2"), at("other")]);
    }

    #[test]
    fn networks_are_written_as_systemd_reads_them() {
        let network = Network {
            address: IpAddr::from([10, 0, 0, 0]),
            bits: 8,
        };
        let properties = super::network(&[network]);
        let [("IPAddressDeny", deny), ("IPAddressAllow", allow)] = properties.as_slice() else {
            panic!("{properties:?}");
        };
        assert_eq!(deny.value_signature().to_string(), "a(iayu)");
        let expected: Variant<'_> = vec![
            (2i32, vec![127u8, 0, 0, 0], 8u32),
            (10, std::net::Ipv6Addr::LOCALHOST.octets().to_vec(), 128),
            (2, vec![10, 0, 0, 0], 8),
        ]
        .into();
        assert_eq!(*allow, expected);
    }
}
