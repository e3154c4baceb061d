//! The coordinator under test: a process of its own.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use berth_model::token::JoinToken;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Lets this process, and those it starts, open as many files as the system allows.
pub(crate) fn allow_files() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, all).context("cannot raise the limit of open files")
}

/// What a process has used so far, and has now.
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    pub(crate) resident: u64,
}

pub(crate) struct Coordinator {
    dir: TempDir,
    address: String,
    program: PathBuf,
    child: Child,
}

impl Coordinator {
    pub(crate) async fn start(agents: usize) -> Result<Self> {
        let program: PathBuf = std::env::var_os("BERTH_COORDINATOR")
            .context("BERTH_COORDINATOR must name the coordinator's program")?
            .into();
        let dir = tempfile::tempdir()?;
        // The same port before and after a restart.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let config = format!(
            "listen = \"{address}\"\ndata_dir = {:?}\nmax_connections = {}\n",
            dir.path().join("data"),
            agents + 1000
        );
        std::fs::write(dir.path().join("coordinator.toml"), config)?;
        let child = spawn(&program, &dir)?;
        let mut this = Self {
            dir,
            address,
            program,
            child,
        };
        this.ready().await?;
        Ok(this)
    }

    async fn ready(&mut self) -> Result<()> {
        let endpoint = self.dir.path().join("data/endpoint");
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the coordinator ended: {status}");
            }
            if std::fs::read_to_string(&endpoint).is_ok_and(|text| text.ends_with('\n')) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// As a power cut would end it.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        std::fs::remove_file(self.dir.path().join("data/endpoint"))?;
        Ok(())
    }

    pub(crate) async fn again(&mut self) -> Result<()> {
        self.child = spawn(&self.program, &self.dir)?;
        self.ready().await
    }

    pub(crate) fn endpoint(&self) -> String {
        self.address.clone()
    }

    pub(crate) fn ca(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("data/ca.crt")).unwrap_or_default()
    }

    /// A join token for as many as come.
    pub(crate) async fn token(&self) -> Result<JoinToken> {
        let admin = std::fs::read_to_string(self.dir.path().join("data/admin.token"))?;
        let ca = reqwest::Certificate::from_pem(self.ca().as_bytes())?;
        let client = reqwest::Client::builder().tls_certs_only([ca]).build()?;
        let answer: Value = client
            .post(format!("https://{}/v1/tokens", self.address))
            .bearer_auth(admin.trim())
            .json(&json!({"uses": 0}))
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        let token = answer["token"].as_str().context("no token")?;
        Ok(token.parse()?)
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        let read =
            |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id()));
        let stat = read("stat")?;
        // Behind the name, which may have blanks: state is the third field, utime the 14th, stime the 15th,
        // both in hundredths of a second.
        let (_, fields) = stat.rsplit_once(") ").context("no stat")?;
        let ticks = fields.split(' ').skip(11).take(2);
        let ticks: u64 = ticks.filter_map(|t| t.parse::<u64>().ok()).sum();
        let status = read("status")?;
        let resident = status
            .lines()
            .find_map(|line| {
                line.strip_prefix("VmRSS:")?
                    .split_whitespace()
                    .next()?
                    .parse()
                    .ok()
            })
            .unwrap_or(0_u64);
        Ok(Usage {
            cpu: Duration::from_millis(ticks * 10),
            resident: resident * 1024,
        })
    }
}

fn spawn(program: &PathBuf, dir: &TempDir) -> Result<Child> {
    Command::new(program)
        .arg("--config")
        .arg(dir.path().join("coordinator.toml"))
        .env("BERTH_LOG", "error")
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
