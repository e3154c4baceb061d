//! A node: a data folder and the real agent on it.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use berth_model::instance::{InstanceSpec, Intent};
use berth_model::node::RuntimeKind;
use berth_model::route::Order;
use berth_package::Summary;

use crate::coordinator::Coordinator;
use crate::module::{self, MODE};

/// The shim that the agents of the tests use.
pub(crate) fn shim() -> PathBuf {
    match std::env::var_os("BERTH_SHIM") {
        Some(shim) => shim.into(),
        None => beside("berth-shim"),
    }
}

/// The agent under test; `BERTH_AGENT` may name another one, as an older one.
pub(crate) fn agent() -> PathBuf {
    let ours = || env!("CARGO_BIN_EXE_berth-agent").into();
    std::env::var_os("BERTH_AGENT").map_or_else(ours, PathBuf::from)
}

/// A program beside the agent, built if it is not there.
pub(crate) fn beside(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_berth-agent"))
        .parent()
        .unwrap();
    let program = folder.join(name);
    if !program.exists() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .args(["build", "--quiet", "--package", name, "--target-dir"])
            .arg(folder.parent().unwrap())
            .status()
            .unwrap();
        assert!(built.success());
    }
    program
}

/// A range of ports that no other test process uses: found by taking one that is free, below those of
/// outgoing connections.
pub(crate) fn port_range() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let step = NEXT.fetch_add(1, Ordering::SeqCst);
    let base = 22_000 + (std::process::id() % 400) as u16 * 25;
    let first = (0..400)
        .map(|i| 22_000 + (base - 22_000 + (i + step) * 25) % 10_000)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .unwrap();
    format!("{first}-{}", first + 24)
}

/// A node of the test's own.
pub(crate) struct Node {
    /// Its data are on a small file system.
    mounted: bool,
    dir: tempfile::TempDir,
    agent: Option<Child>,
    /// The agent that is started next.
    pub(crate) agent_program: PathBuf,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        // Whatever the test left running.
        self.command("stop-instances").output().unwrap();
        if self.mounted {
            let _ = Command::new("umount").arg("-l").arg(self.data()).status();
        }
    }
}

impl Node {
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// With further lines in its configuration.
    pub(crate) fn with(further: &str) -> Self {
        Self::with_shim(&shim(), further)
    }

    fn with_shim(shim: &Path, further: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "shim = {:?}\ndriver = {:?}\nmax_output = \"4MiB\"\nport_range = {:?}\nkind = \"virtual\"\n\
             exclusive = false\nlog_budget = \"8MiB\"\nlog_segment = \"16KiB\"\n{further}",
            shim,
            beside("berth-driver"),
            port_range()
        );
        std::fs::write(dir.path().join("agent.toml"), config).unwrap();
        Self {
            mounted: false,
            dir,
            agent: None,
            agent_program: agent(),
        }
    }

    /// Joined to a coordinator, not running.
    pub(crate) fn joined(coordinator: &Coordinator) -> Self {
        Self::joined_with(coordinator, "")
    }

    /// As [`Node::joined`], with further lines in its configuration.
    pub(crate) fn joined_with(coordinator: &Coordinator, further: &str) -> Self {
        let node = Self::with(further);
        let output = node.join(&coordinator.endpoint(), &coordinator.token());
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        node
    }

    /// As [`Node::joined_with`], with its data on a file system of so many bytes. None where that cannot be had.
    pub(crate) fn on_small_disk(
        coordinator: &Coordinator,
        bytes: u64,
        further: &str,
    ) -> Option<Self> {
        let mut node = Self::with(further);
        std::fs::create_dir(node.data()).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(node.data())
            .stderr(Stdio::null())
            .status();
        node.mounted = mounted.is_ok_and(|status| status.success());
        if !node.mounted {
            berth_skipped::skip("small-disk", "a file system cannot be mounted here");
            return None;
        }
        let output = node.join(&coordinator.endpoint(), &coordinator.token());
        assert!(output.status.success(), "{output:?}");
        Some(node)
    }

    /// As [`Node::joined_with`], with a shim of the test's own.
    #[cfg(feature = "docker")]
    pub(crate) fn joined_at(coordinator: &Coordinator, shim: &Path, further: &str) -> Self {
        let node = Self::with_shim(shim, further);
        let output = node.join(&coordinator.endpoint(), &coordinator.token());
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        node
    }

    /// Joined to a coordinator and running.
    pub(crate) fn running(coordinator: &Coordinator) -> Self {
        let mut node = Self::joined(coordinator);
        node.run();
        node
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(&self.agent_program);
        command.arg(name).arg("--data").arg(self.data());
        command
            .arg("--config")
            .arg(self.dir.path().join("agent.toml"));
        command
    }

    pub(crate) fn join(&self, endpoint: &str, token: &str) -> Output {
        self.command("join")
            .args([endpoint, "--token", token, "--name", "n1"])
            .output()
            .unwrap()
    }

    pub(crate) fn stop_instances(&self) -> Output {
        self.command("stop-instances").output().unwrap()
    }

    pub(crate) fn run(&mut self) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join("agent.log"))
            .unwrap();
        let mut command = self.command("run");
        command
            .env("BERTH_LOG", "debug,h2=info,hyper=info,tower=info")
            .stderr(log)
            .stdout(Stdio::null());
        self.agent = Some(command.spawn().unwrap());
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("agent.log")).unwrap_or_default()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            agent.wait().unwrap();
        }
    }

    /// SIGTERM; returns whether it exited with 0.
    pub(crate) fn terminate(&mut self) -> bool {
        let Some(mut agent) = self.agent.take() else {
            return false;
        };
        let pid = rustix::process::Pid::from_child(&agent);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        agent.wait().unwrap().success()
    }

    pub(crate) fn agent_pid(&self) -> u32 {
        self.agent.as_ref().unwrap().id()
    }
}

/// A package whose module is this test binary, registered with the coordinator.
pub(crate) struct Package {
    pub(crate) summary: Summary,
    pub(crate) bytes: Vec<u8>,
}

impl Package {
    pub(crate) fn new(coordinator: &Coordinator, health: &str, padding: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        std::fs::create_dir_all(source.join("model")).unwrap();
        // Does not compress, so that an archive can be made as long as a test needs it.
        let mut seed = 1u32;
        let weights: Vec<u8> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        })
        .take(padding + 10)
        .collect();
        std::fs::write(source.join("model/weights"), weights).unwrap();
        let manifest = format!(
            "[package]\nname = \"web\"\nversion = \"1.0.0\"\n[model]\npath = \"model\"\nformat = \"custom\"\n\
             [module]\nkind = \"custom\"\ncommand = {:?}\nstop_grace = \"1s\"\n[health]\n{health}\n",
            module::command()
        );
        std::fs::write(source.join("berth.toml"), manifest).unwrap();
        Self::of(coordinator, &source)
    }

    /// A package of the test's own files: path and content, a program if it begins with `#!`.
    pub(crate) fn with(coordinator: &Coordinator, files: &[(&str, &str)]) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, content).unwrap();
            let mode = if content.starts_with("#!") {
                0o755
            } else {
                0o644
            };
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        }
        Self::of(coordinator, dir.path())
    }

    /// The package in a folder.
    pub(crate) fn of(coordinator: &Coordinator, source: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("web.tar.zst");
        let summary = berth_package::build(source, &archive).unwrap();
        let bytes = std::fs::read(&archive).unwrap();
        coordinator.with(|state| {
            state
                .blobs
                .insert(summary.archive.to_string(), bytes.clone())
        });
        Self { summary, bytes }
    }

    /// Checked often, so that tests are quick.
    pub(crate) fn quick(coordinator: &Coordinator) -> Self {
        Self::new(
            coordinator,
            "http = \"/healthz\"\ninterval = \"100ms\"\nunhealthy_after = 2\nstart_timeout = \"20s\"",
            0,
        )
    }

    pub(crate) fn spec(&self, id: &str, mode: &str) -> InstanceSpec {
        InstanceSpec {
            id: id.parse().unwrap(),
            digest: self.summary.digest,
            blob: self.summary.archive,
            blob_bytes: self.summary.archive_size,
            version: self.summary.version.clone(),
            serial: 7,
            runtime: RuntimeKind::Process,
            manifest: self.summary.manifest.clone(),
            env: BTreeMap::from([(MODE.to_owned(), mode.to_owned())]),
            intent: Intent::Run,
            task: None,
            gpus: Vec::new(),
        }
    }
}

pub(crate) fn stopping(spec: &InstanceSpec) -> InstanceSpec {
    InstanceSpec {
        intent: Intent::Stop,
        ..spec.clone()
    }
}

pub(crate) fn order(generation: u64) -> Order {
    Order {
        epoch: 1,
        term: 1,
        generation,
    }
}

/// Whether a process runs (a zombie does not).
pub(crate) fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| !rest.starts_with('Z'))
    })
}

/// The pid that answers there.
pub(crate) fn pid_at(address: SocketAddr) -> u32 {
    let body = module::ask(address, "/").unwrap();
    body.split_whitespace().next().unwrap().parse().unwrap()
}
