//! `cargo xtask bench deploy`: from a deploy accepted to the first 200 through the gateway, less what
//! the module itself takes to start; memory and CPU of an idle agent and its shims.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "it prints its figures")]

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use berth_tests::{Cluster, Mode, Options, pids_with, until};

const ROUNDS: usize = 20;
const IDLE: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> Result<()> {
    let rounds = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(ROUNDS);
    // Built beside this program by the same cargo call.
    let module = std::env::current_exe()?
        .ancestors()
        .nth(2)
        .map(|dir| dir.join("test-module"))
        .context("this program lies nowhere")?;
    let cluster = Cluster::start(Options::nodes(1), module.to_str().context("a path")?).await?;
    cluster.push("echo", "1.0.0", Mode::Good)?;
    // The first deploy also fetches and unpacks the package; it is told apart.
    let (mut cold, mut warm, mut own) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        own.push(module_start(&module)?);
        let took = deploy(&cluster).await?;
        if round == 0 {
            cold.push(took)
        } else {
            warm.push(took)
        }
    }
    let own = median(&mut own);
    println!("{rounds} deploys, from accepted to the first 200 through the gateway");
    println!(
        "  module alone, exec to accept   median {:>7.1} ms",
        ms(own)
    );
    println!(
        "  first deploy (fetch, unpack)          {:>7.1} ms",
        ms(cold[0])
    );
    warm.sort();
    println!(
        "  deploy                         median {:>7.1} ms  min {:.1}  max {:.1}",
        ms(warm[warm.len() / 2]),
        ms(warm[0]),
        ms(warm[warm.len() - 1])
    );
    println!(
        "  deploy less the module         median {:>7.1} ms",
        ms(warm[warm.len() / 2].saturating_sub(own))
    );
    cluster.client.deploy("echo", Some(1)).await?;
    cluster.wait_ready("echo", 1).await?;
    idle(&cluster).await
}

fn ms(d: Duration) -> f64 {
    d.as_secs_f64() * 1000.0
}

fn median(all: &mut [Duration]) -> Duration {
    all.sort();
    all[all.len() / 2]
}

/// From exec to the first accepted connection, without Berth.
fn module_start(module: &Path) -> Result<Duration> {
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let began = Instant::now();
    let mut child = Command::new(module)
        .env("PORT", port.to_string())
        .env("TEST_MODE", "good")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        std::thread::sleep(Duration::from_micros(200));
    }
    let took = began.elapsed();
    child.kill()?;
    child.wait()?;
    Ok(took)
}

/// Deploys, takes the time, deletes again.
async fn deploy(cluster: &Cluster) -> Result<Duration> {
    cluster.client.deploy("echo", Some(1)).await?;
    let accepted = Instant::now();
    loop {
        if let Ok((status, ..)) = cluster.client.predict("echo", 1).await
            && status.is_success()
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = accepted.elapsed();
    cluster.client.delete("echo").await?;
    until("the service to be gone", || async {
        let services = cluster.client.services().await?;
        Ok((services.is_empty(), services))
    })
    .await?;
    Ok(took)
}

async fn idle(cluster: &Cluster) -> Result<()> {
    let agent = cluster.agents[0].pid().context("the agent does not run")?;
    let view = cluster.client.service("echo").await?;
    let id = &view.instances[0].status.id;
    let module = pids_with(&format!("BERTH_INSTANCE={id}"));
    let shim = module
        .iter()
        .find_map(|pid| parent(*pid))
        .context("no shim")?;
    // Figures of an idle process are those after it has been left alone.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = cpu_ticks(agent)? + cpu_ticks(shim)?;
    let agent_before = cpu_ticks(agent)?;
    tokio::time::sleep(IDLE).await;
    let ticks = cpu_ticks(agent)? - agent_before;
    let percent = ticks_percent(ticks);
    println!("idle for {} s with one instance", IDLE.as_secs());
    println!(
        "  agent  {:>6} KiB RSS  {percent:.3} % CPU",
        rss_kib(agent)?
    );
    let both = ticks_percent(cpu_ticks(agent)? + cpu_ticks(shim)? - before);
    println!(
        "  shim   {:>6} KiB RSS  {:.3} % CPU",
        rss_kib(shim)?,
        both - percent
    );
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "a few ticks")]
fn ticks_percent(ticks: u64) -> f64 {
    // USER_HZ is 100 on every Linux that Berth runs on: a tick is 10 ms.
    ticks as f64 / 100.0 / IDLE.as_secs_f64() * 100.0
}

fn stat(pid: u32) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = text.rsplit_once(") ").context("a stat line")?.1;
    Ok(rest.split(' ').map(str::to_owned).collect())
}

fn parent(pid: u32) -> Option<u32> {
    stat(pid).ok()?.get(1)?.parse().ok().filter(|p| *p > 1)
}

fn cpu_ticks(pid: u32) -> Result<u64> {
    let fields = stat(pid)?;
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

fn rss_kib(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text
        .lines()
        .find(|l| l.starts_with("VmRSS:"))
        .context("no VmRSS")?;
    Ok(line
        .split_whitespace()
        .nth(1)
        .context("a number")?
        .parse()?)
}
