//! What a module that tries to break out can do, and what becomes of one that wants too much: the same wherever it runs.

use anyhow::{Result, bail};
use berth_model::instance::Reason;

use crate::{Cluster, Mode, until};

/// What a module may do of all that `test-module` tries.
const ALLOWED: [&str; 2] = ["read its package", "write its folder"];

/// How many things it tries.
const TRIED: usize = 15;

/// Deploys a module with a secret, and one that tries to break out on the same node; fails with what that could do.
pub async fn nothing_breaks_out(cluster: &Cluster) -> Result<()> {
    for (name, mode) in [("victim", Mode::Secret), ("intruder", Mode::Probe)] {
        cluster.push(name, "1.0.0", mode)?;
        cluster.client.deploy(name, Some(1)).await?;
        cluster.wait_ready(name, 1).await?;
    }
    let mut tried: Vec<(String, bool)> = Vec::new();
    until("every try to be logged", || async {
        let lines = cluster.client.logs("intruder").await?;
        let probes = lines
            .iter()
            .filter_map(|line| line.text.strip_prefix("probe "));
        let count = probes.count();
        Ok((count >= TRIED, count))
    })
    .await?;
    for line in cluster.client.logs("intruder").await? {
        let probe = line
            .text
            .strip_prefix("probe ")
            .and_then(|text| text.split_once(": "));
        tried.extend(probe.map(|(what, could)| (what.to_owned(), could == "yes")));
    }
    let wrong = tried
        .iter()
        .filter(|(what, could)| ALLOWED.contains(&what.as_str()) != *could);
    let wrong: Vec<&str> = wrong.map(|(what, _)| what.as_str()).collect();
    if !wrong.is_empty() || tried.len() != TRIED {
        bail!(
            "these came out otherwise than they should, of {}: {wrong:?}",
            tried.len()
        );
    }
    Ok(())
}

/// Deploys a module that uses more memory than its manifest says, and waits until that is told, with the limit and, where
/// the kernel tells it, the peak.
pub async fn too_much_memory_is_told(cluster: &Cluster) -> Result<()> {
    const LIMIT: u64 = 64 << 20;
    cluster.push("hog", "1.0.0", Mode::Hog)?;
    cluster.client.deploy("hog", Some(1)).await?;
    until("the lack of memory to be told", || async {
        let view = cluster.client.service("hog").await?;
        let reason = view
            .instances
            .first()
            .and_then(|one| one.status.reason.clone());
        let told = matches!(&reason, Some(Reason::OutOfMemory { limit: Some(LIMIT), peak, .. })
            if peak.is_none_or(|peak| peak > LIMIT / 2 && peak <= LIMIT));
        Ok((told, reason))
    })
    .await?;
    let shown = cluster.cli_text(&["service", "show", "hog"])?;
    if !shown.contains("out of memory") || !shown.contains("64MiB") {
        bail!("it is not shown: {shown}");
    }
    cluster.client.delete("hog").await.map(|_| ())
}
