//! Newer packages installed one after the other while requests are served: nobody notices.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use berth_model::api::StatusView;
use berth_tests::hosts::{SHARE, deb};
use berth_tests::{Client, Hosts, Load, Mode, bin, output_of, stage, until};
use tempfile::TempDir;

const MODULE: &str = env!("CARGO_BIN_EXE_test-module");
/// The host with coordinator and gateway, and the one with agent and relay.
const CONTROL: usize = 1;
const NODE: usize = 2;
const UNITS: [(usize, &str); 4] = [
    (CONTROL, "berth-coordinator"),
    (CONTROL, "berth-gateway"),
    (NODE, "berth-agent"),
    (NODE, "berth-relay"),
];

/// The last line of configuration in the newer packages, and one of an administrator's.
const NEWER: &str = "# newer\n";
const MINE: &str = "# mine";

/// A fleet that is nowhere but on hosts.
struct Fleet<'a> {
    hosts: &'a Hosts,
    client: Client,
    dir: TempDir,
}

impl<'a> Fleet<'a> {
    async fn install(hosts: &'a Hosts) -> Result<Self> {
        hosts.install(CONTROL, &["berth-coordinator"])?;
        hosts.install(NODE, &["berth-agent"])?;
        until("the coordinator to be ready", || async {
            let state = hosts.exec(CONTROL, "systemctl is-active berth-coordinator || true")?;
            Ok((state == "active", state))
        })
        .await?;
        let dir = TempDir::with_prefix("berth-test-")?;
        for file in ["ca.crt", "admin.token"] {
            let text = hosts.exec(CONTROL, &format!("cat /var/lib/berth/coordinator/{file}"))?;
            std::fs::write(dir.path().join(file), text + "\n")?;
        }
        let at = |port: u16| format!("{}:{port}", hosts.address(CONTROL)).parse();
        let client = Client::new(at(7450)?, dir.path(), at(7480)?)?;
        let token = client.token().await?;
        let join = format!(
            "berth-agent join {}:7450 --token {token}",
            hosts.address(CONTROL)
        );
        hosts.exec(NODE, &join)?;
        until("node and gateway to be there", || async {
            let status = client.status().await?;
            let ready = status.nodes.get("ready") == Some(&1);
            Ok((ready && status.gateways.iter().any(|g| g.connected), status))
        })
        .await?;
        Ok(Self { hosts, client, dir })
    }

    async fn deploy(&self, name: &str) -> Result<()> {
        let folder = self.dir.path().join("package");
        stage(&folder, Path::new(MODULE), name, "1.0.0", Mode::Good)?;
        let folder = folder.to_str().context("a path that is not UTF-8")?;
        self.cli(&["model", "push", folder])?;
        self.client.deploy(name, Some(1)).await?;
        until("the service to answer", || async {
            let answer = self.client.predict(name, 0).await?;
            Ok((answer.0.is_success(), answer))
        })
        .await
    }

    /// What the CLI says. It looks at no dates, unlike the client.
    fn cli(&self, args: &[&str]) -> Result<String> {
        let token = std::fs::read_to_string(self.dir.path().join("admin.token"))?;
        let endpoint = format!("https://{}:7450", self.hosts.address(CONTROL));
        let mut cli = Command::new(bin("berth")?);
        cli.args(args)
            .env("BERTH_ENDPOINT", endpoint)
            .env("BERTH_CA", self.dir.path().join("ca.crt"))
            .env("BERTH_TOKEN", token.trim());
        output_of(&mut cli)
    }

    /// (instance, start, pid)
    async fn runs(&self, service: &str) -> Result<Vec<(String, u32, Option<u32>)>> {
        let view = self.client.service(service).await?;
        let run = |i: &berth_model::api::InstanceView| {
            (i.status.id.to_string(), i.status.start, i.status.pid)
        };
        Ok(view.instances.iter().map(run).collect())
    }

    fn main_pids(&self) -> Result<Vec<String>> {
        let pid = |(host, unit): &(usize, &str)| {
            let ask = format!("systemctl show --value -p MainPID {unit}");
            self.hosts.exec(*host, &ask)
        };
        UNITS.iter().map(pid).collect()
    }

    /// Waits until a host's units run as other processes than before, and traffic goes on.
    async fn upgrade(&self, host: usize, package: &str, load: &Load) -> Result<()> {
        let before = self.main_pids()?;
        load.pass(100).await?;
        let file = newer(self.hosts, package)?;
        // As an administrator does who wants to be asked nothing.
        let install = format!("dpkg --force-confdef --force-confold -i {file}");
        let told = self.hosts.exec(host, &install)?;
        until("systemd to follow the new processes", || async {
            let now = self.main_pids()?;
            let mut changed = UNITS.iter().zip(before.iter().zip(&now));
            let all = changed.all(|((on, _), (old, new))| (*on == host) == (old != new));
            Ok((all && !now.contains(&"0".to_owned()), (&told, now)))
        })
        .await?;
        load.pass(200).await
    }

    /// How often the line of each request is in the logs.
    async fn lines(&self, service: &str) -> Result<BTreeMap<u64, u32>> {
        let mut count = BTreeMap::new();
        for line in self.client.logs(service).await? {
            if let Some(number) = line.text.strip_prefix("request ") {
                *count.entry(number.parse()?).or_default() += 1;
            }
        }
        Ok(count)
    }
}

/// The same package as a later version, where hosts see it.
fn newer(hosts: &Hosts, package: &str) -> Result<String> {
    let folder = TempDir::with_prefix("berth-test-")?;
    let unpacked = folder.path().join("deb");
    let name = format!("{package}-newer.deb");
    let packed: PathBuf = hosts.share().join(&name);
    output_of(
        Command::new("dpkg-deb")
            .arg("-R")
            .arg(deb(package)?)
            .arg(&unpacked),
    )?;
    let control = unpacked.join("DEBIAN/control");
    let text = std::fs::read_to_string(&control)?;
    let version = text.lines().find(|line| line.starts_with("Version: "));
    let version = version.context("a version")?;
    std::fs::write(&control, text.replace(version, "Version: 99.0.0"))?;
    // Its configuration has changed, too.
    let files = std::fs::read_to_string(unpacked.join("DEBIAN/conffiles"))?;
    for file in files.lines() {
        let file = unpacked.join(file.trim_start_matches('/'));
        let text = std::fs::read_to_string(&file)?;
        std::fs::write(&file, text + NEWER)?;
    }
    let mut pack = Command::new("dpkg-deb");
    pack.args(["--root-owner-group", "-Znone", "-b"]);
    output_of(pack.arg(&unpacked).arg(&packed))?;
    Ok(format!("{SHARE}/{name}"))
}

#[test]
fn newer_packages_under_load_cost_no_request_no_line_and_no_instance() -> Result<()> {
    Hosts::run(2, |hosts| async move {
        let fleet = Fleet::install(&hosts).await?;
        fleet.deploy("web").await?;
        let before = fleet.runs("web").await?;
        hosts.exec(NODE, &format!("echo '{MINE}' >>/etc/berth/agent.toml"))?;
        let load = Load::start(&fleet.client, "web", 4, 1);
        fleet.upgrade(NODE, "berth-agent", &load).await?;
        fleet.upgrade(CONTROL, "berth-coordinator", &load).await?;
        // What was edited is kept, and what was not is replaced.
        let last = hosts.exec(NODE, "tail -1 /etc/berth/agent.toml")?;
        ensure!(last == MINE, "{last}");
        let last = hosts.exec(CONTROL, "tail -1 /etc/berth/coordinator.toml")?;
        ensure!(last == NEWER.trim(), "{last}");
        // Once more by hand, and the agent beside: what was adopted is adopted again.
        hosts.exec(CONTROL, "systemctl reload berth-gateway")?;
        hosts.exec(
            NODE,
            "systemctl reload berth-relay; systemctl restart berth-agent",
        )?;
        load.pass(200).await?;
        let outcome = load.end().await?;
        eprintln!(
            "upgrades under load: {} answered, {} failed",
            outcome.answered.len(),
            outcome.failed.len()
        );
        outcome.assert_none_failed();

        until("the line of every answered request, once", || async {
            let lines = fleet.lines("web").await?;
            let wrong = outcome.answered.iter().filter(|n| lines.get(n) != Some(&1));
            let wrong: Vec<_> = wrong.take(5).collect();
            Ok((wrong.is_empty(), wrong))
        })
        .await?;
        until("the session of the newest agent", || async {
            let status = fleet.client.status().await?;
            Ok((status.nodes.get("ready") == Some(&1), status))
        })
        .await?;
        ensure!(
            fleet.runs("web").await? == before,
            "instances were restarted"
        );
        wrong_time(&fleet).await?;
        // The old processes are gone, systemd has noticed nothing, and it stops the right one.
        for (host, unit) in UNITS {
            let failed =
                hosts.exec(host, &format!("systemctl show --value -p NRestarts {unit}"))?;
            ensure!(failed == "0", "{unit} was started anew {failed} times");
        }
        let stop = "systemctl stop berth-gateway; systemctl is-active berth-gateway || true
            stat -c %U /proc/[0-9]* 2>/dev/null | grep -c berth-gateway || true";
        ensure!(hosts.exec(CONTROL, stop)? == "inactive\n0");
        Ok(())
    })
}

/// The coordinator's clock jumps. What runs does not notice, and whoever begins anew is let in and finds the other.
async fn wrong_time(fleet: &Fleet<'_>) -> Result<()> {
    const HOUR: i64 = 3_600;
    const YEAR: i64 = 365 * 86_400;
    let before = fleet.runs("web").await?;
    let load = Load::start(&fleet.client, "web", 4, 1_000_000);
    for shift in [HOUR, -HOUR, YEAR, -YEAR, 0] {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let time = now.as_secs().saturating_add_signed(shift);
        let mut set = format!("date -s @{time}");
        if shift.abs() != HOUR {
            set += "; systemctl restart berth-coordinator";
            fleet.hosts.exec(NODE, "systemctl stop berth-agent")?;
        }
        fleet.hosts.exec(CONTROL, &set)?;
        fleet.hosts.exec(NODE, "systemctl start berth-agent")?;
        until("agent and gateway to have sessions", || async {
            let status: StatusView = serde_json::from_str(&fleet.cli(&["status", "-o", "json"])?)?;
            let ready = status.nodes.get("ready") == Some(&1);
            Ok((ready && status.gateways.iter().all(|g| g.connected), status))
        })
        .await
        .with_context(|| format!("by {shift} s"))?;
        load.pass(30).await?;
    }
    load.end().await?.assert_none_failed();
    ensure!(
        fleet.runs("web").await? == before,
        "instances were restarted"
    );
    Ok(())
}
