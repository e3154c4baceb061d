//! Stopping a local Berth: traffic first, then what serves it, then what rules it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::up::local::Local;
use super::up::process;
use super::up::record::Record;
use crate::args::Down;
use crate::output;

/// Longer than a gateway drains.
const GATEWAY: Duration = Duration::from_secs(40);
const OTHERS: Duration = Duration::from_secs(15);

pub(super) async fn run(down: &Down) -> Result<()> {
    let local = Local::open(down.data.clone())?;
    stop(&local).await?;
    output::line(
        "everything is stopped; `berth up` with the same data serves again what was deployed",
    )
}

/// Stops every process and every instance; tries all, then tells the first failure.
pub(super) async fn stop(local: &Local) -> Result<()> {
    let _lock = local.lock()?;
    let mut record = Record::read(local)?;
    let nodes: Vec<String> = record
        .processes
        .keys()
        .filter(|name| name.starts_with("node-"))
        .cloned()
        .collect();
    let mut results = vec![process::stop(&record, "gateway", GATEWAY).await];
    for node in &nodes {
        results.push(process::stop(&record, node, OTHERS).await);
    }
    results.push(stop_instances(local).await);
    results.push(process::stop(&record, "coordinator", OTHERS).await);
    let gone = |name: &String| !record.runs(name);
    let left: Vec<String> = record
        .processes
        .keys()
        .filter(|name| !gone(name))
        .cloned()
        .collect();
    record.processes.retain(|name, _| left.contains(name));
    record.write(local)?;
    results.into_iter().collect()
}

/// On all nodes at once: each may take its modules' whole grace.
async fn stop_instances(local: &Local) -> Result<()> {
    let nodes = local.nodes();
    if nodes.is_empty() {
        return Ok(());
    }
    let agent = local.program("berth-agent")?;
    let stops = nodes.iter().map(|n| stop_node(&agent, local, *n));
    futures_util::future::join_all(stops)
        .await
        .into_iter()
        .collect()
}

async fn stop_node(agent: &Path, local: &Local, number: u16) -> Result<()> {
    let (config, data) = (local.agent_config(number), local.node(number));
    if !data.join("identity/node.json").is_file() {
        // It never joined, so it never ran anything.
        return Ok(());
    }
    let output = tokio::process::Command::new(agent)
        .arg("stop-instances")
        .arg("--config")
        .arg(config)
        .arg("--data")
        .arg(&data)
        .stdin(Stdio::null())
        .output()
        .await
        .with_context(|| format!("cannot run {}", agent.display()))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!(
            "instances under {} may be left: {}",
            data.display(),
            why.trim()
        );
    }
    Ok(())
}
