//! Real hosts: user-mode Linux from `tests/platform/hosts.sh`, each with systemd, cgroups, an address, a disk and power
//! of its own. The test is a machine on their network, too.

mod install;
mod shell;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::{output_of, skip, tests_folder};

pub use install::{deb, debs};

/// The test's address on the hosts' network.
pub const TEST: &str = "10.99.0.254";
/// A second address of the test's: for what a host shall lose while it still reaches the first.
pub const OTHER: &str = "10.99.0.253";
/// Where each host sees [`Hosts::share`].
pub const SHARE: &str = "/mnt/test";

/// Running hosts, numbered from 1; they end when this is dropped.
#[derive(Debug)]
pub struct Hosts {
    run: PathBuf,
    count: usize,
}

impl Hosts {
    /// Whether hosts can be had; where not, that is noted as skipped.
    pub fn wanted() -> Result<bool> {
        let wanted = std::env::var_os("BERTH_TEST_HOSTS").is_some_and(|value| value == "1");
        if !wanted {
            skip(
                "hosts",
                "BERTH_TEST_HOSTS is not 1; `cargo xtask test` sets it where hosts can be had (root on Debian)",
            )?;
        }
        Ok(wanted)
    }

    /// Boots `count` hosts and runs `test` on their network: every socket that it opens and every program that it
    /// starts is there. Passes without running it where hosts cannot be had.
    pub fn run<F, T>(count: usize, test: F) -> Result<()>
    where
        F: FnOnce(Arc<Hosts>) -> T,
        T: Future<Output = Result<()>>,
    {
        if !Self::wanted()? {
            return Ok(());
        }
        let hosts = Arc::new(Self::up(count)?);
        // Threads start where the one is that starts them, so the runtime's are made after this.
        hosts.enter()?;
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?
            .block_on(async {
                let result = test(Arc::clone(&hosts)).await;
                if result.is_err() {
                    eprintln!("{}", hosts.journals());
                }
                result
            })
    }

    /// Boots `count` hosts and waits until they have booted.
    fn up(count: usize) -> Result<Self> {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let run = std::env::temp_dir()
            .join("berth-test-hosts")
            .join(format!("{}-{run}", std::process::id()));
        let hosts = Self { run, count };
        hosts.script(&["up", &count.to_string()])?;
        Ok(hosts)
    }

    /// Brings this thread onto the hosts' network.
    fn enter(&self) -> Result<()> {
        let name = self.script(&["netns"])?;
        let file = Path::new("/run/netns").join(&name);
        let namespace = std::fs::File::open(&file)
            .with_context(|| format!("cannot open {}", file.display()))?;
        setns(namespace, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("cannot enter the network {name}"))
    }

    fn script(&self, args: &[&str]) -> Result<String> {
        output_of(
            Command::new(tests_folder().join("platform/hosts.sh"))
                .args(args)
                .env("BERTH_HOSTS_RUN", &self.run)
                .env("BERTH_HOSTS_OWNER", std::process::id().to_string()),
        )
    }

    /// The numbers of the hosts.
    pub fn all(&self) -> std::ops::RangeInclusive<usize> {
        1..=self.count
    }

    /// The address of a host.
    pub fn address(&self, host: usize) -> String {
        format!("10.99.0.{host}")
    }

    /// Runs a bash script on a host as root; its output, standard error included. Fails as the script does.
    pub fn exec(&self, host: usize, script: &str) -> Result<String> {
        shell::run(&self.address(host), script).with_context(|| format!("on host {host}"))
    }

    /// Whether a bash script on a host ends with success.
    pub fn succeeds(&self, host: usize, script: &str) -> bool {
        self.exec(host, script).is_ok()
    }

    /// Runs a bash script on all hosts at once.
    pub fn exec_all(&self, script: &str) -> Result<Vec<String>> {
        self.each(|host| self.exec(host, script))
    }

    /// Does something for all hosts at once.
    pub fn each<T: Send>(&self, one: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
        let one = &one;
        std::thread::scope(|scope| {
            let all: Vec<_> = self
                .all()
                .map(|host| scope.spawn(move || one(host)))
                .collect();
            all.into_iter()
                .map(|one| match one.join() {
                    Ok(result) => result,
                    Err(_) => bail!("a thread panicked"),
                })
                .collect()
        })
    }

    /// The folder that every host sees as [`SHARE`]: the quick way for large files.
    pub fn share(&self) -> PathBuf {
        self.run.join("share")
    }

    /// Copies a file to a host, with its mode.
    pub fn put(&self, host: usize, file: &Path, path: &str) -> Result<()> {
        let shared = tempfile::NamedTempFile::new_in(self.share())?;
        std::fs::copy(file, shared.path())?;
        let name = shared.path().file_name().context("a name")?;
        let (name, fresh) = (name.to_string_lossy(), format!("{path}.new"));
        let script = format!(
            "mkdir -p $(dirname {path}) && cp -p {SHARE}/{name} {fresh} && mv {fresh} {path}"
        );
        self.exec(host, &script).map(|_| ())
    }

    /// Writes a text file on a host.
    pub fn write(&self, host: usize, path: &str, text: &str) -> Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), text)?;
        self.put(host, file.path(), path)
    }

    /// Cuts a host's power: nothing that it had not written to its disk is left.
    pub fn cut(&self, host: usize) -> Result<()> {
        self.script(&["cut", &host.to_string()]).map(|_| ())
    }

    /// Shuts a host down in order.
    pub fn off(&self, host: usize) -> Result<()> {
        self.script(&["off", &host.to_string()]).map(|_| ())
    }

    /// Switches a host on again, and waits until it has booted.
    pub fn boot(&self, host: usize) -> Result<()> {
        self.script(&["boot", &host.to_string()]).map(|_| ())
    }

    /// Pulls a host's network cable.
    pub fn link_down(&self, host: usize) -> Result<()> {
        self.link(host, "down")
    }

    /// Plugs a host's network cable in.
    pub fn link_up(&self, host: usize) -> Result<()> {
        self.link(host, "up")
    }

    fn link(&self, host: usize, state: &str) -> Result<()> {
        self.script(&["link", &host.to_string(), state]).map(|_| ())
    }

    /// Has a host lose [`OTHER`] (and nothing else), or reach it again.
    pub fn lose_other(&self, host: usize, lost: bool) -> Result<()> {
        let change = if lost { "replace" } else { "del" };
        self.exec(host, &format!("ip route {change} blackhole {OTHER}"))
            .map(|_| ())
    }

    /// What a failing test wants to read: the journals of Berth's units.
    pub fn journals(&self) -> String {
        const JOURNAL: &str = "journalctl -b -o short-precise --no-pager -n 80 -u 'berth-*'";
        self.all()
            .map(|host| {
                let text = self.exec(host, JOURNAL);
                format!(
                    "== host {host}\n{}\n",
                    text.unwrap_or_else(|error| format!("{error:#}"))
                )
            })
            .collect()
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.journals());
        }
        if let Err(error) = self.script(&["down"]) {
            eprintln!("{} may be left: {error:#}", self.run.display());
        }
    }
}
