//! What nodes tell of themselves, on the machine that the tests run on.

use std::path::Path;

use anyhow::{Context, Result};
use berth_model::node::Gpu;
use berth_tests::{Cluster, Options, on_path, output_of, skip, until_some};
use reqwest::Method;

const MODULE: &str = env!("CARGO_BIN_EXE_test-module");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_say_what_they_have_and_what_they_do() -> Result<()> {
    let cluster = Cluster::start(Options::nodes(1), MODULE).await?;
    let node = until_some("statistics", || async {
        let node = cluster.client.nodes().await?.remove(0);
        Ok(node.statistics.is_some().then_some(node))
    })
    .await?;
    let statistics = node.statistics.context("statistics")?;
    assert!(statistics.uptime_secs > 0);
    assert!(statistics.memory_used_bytes > 0);
    assert!(statistics.disk_free_bytes <= statistics.disk_total_bytes);
    assert_eq!(statistics.disk_total_bytes, node.facts.capacity.disk_bytes);
    assert_eq!(node.facts.capacity.gpus as usize, node.facts.gpus.len());
    let (_, metrics) = cluster.client.raw(Method::GET, "/metrics", None).await?;
    let figure = "berth_node_disk_free_bytes{node=\"node-1\"}";
    assert!(metrics.contains(figure), "{metrics}");
    let Some(smi) = on_path("nvidia-smi") else {
        return skip("gpu", "there is no nvidia-smi on this machine");
    };
    let mut found = node.facts.gpus;
    found.sort();
    assert_eq!(found, told_by(&smi)?);
    Ok(())
}

/// The GPUs of this machine, sorted, as NVIDIA's own tool tells.
fn told_by(smi: &Path) -> Result<Vec<Gpu>> {
    let query = "--query-gpu=uuid,name,memory.total,driver_version";
    let mut command = std::process::Command::new(smi);
    let said = output_of(command.args([query, "--format=csv,noheader,nounits"]))?;
    let gpu = |line: &str| {
        let [uuid, name, memory, driver] = line.split(", ").collect::<Vec<_>>()[..] else {
            anyhow::bail!("{line:?}");
        };
        Ok(Gpu {
            uuid: uuid.to_owned(),
            name: name.to_owned(),
            memory_bytes: memory.parse::<u64>()? << 20,
            driver: driver.to_owned(),
        })
    };
    let mut gpus = said.lines().map(gpu).collect::<Result<Vec<_>>>()?;
    gpus.sort();
    Ok(gpus)
}
