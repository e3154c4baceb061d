//! `berth cluster …`: the Kubernetes clusters.

use anyhow::Result;
use berth_model::api::{ClusterView, List};
use berth_model::time::Timestamp;

use crate::args::Cluster;
use crate::client::Client;
use crate::{output, table, words};

pub(super) async fn run(client: &Client, cluster: Cluster) -> Result<()> {
    match cluster {
        Cluster::List(reading) => {
            let list: List<ClusterView> = client.get("/v1/clusters").await?;
            output::show(reading.output, &list.items, |width| {
                clusters(&list.items, words::now(), width)
            })
        }
        Cluster::Show { cluster, reading } => {
            let view: ClusterView = client.get(&format!("/v1/clusters/{cluster}")).await?;
            output::show(reading.output, &view, |_| show(&view))
        }
    }
}

fn clusters(clusters: &[ClusterView], now: Timestamp, width: Option<usize>) -> String {
    if clusters.is_empty() {
        return "No clusters. A [[cluster]] in coordinator.toml adds one: docs/kubernetes.md\n"
            .to_owned();
    }
    let rows: Vec<Vec<String>> = clusters
        .iter()
        .map(|cluster| {
            vec![
                cluster.name.to_string(),
                cluster.state.clone(),
                words::age(cluster.since, now),
                cluster.namespace.clone(),
                cluster.instances.len().to_string(),
                cluster.reason.clone(),
            ]
        })
        .collect();
    let heading = ["NAME", "STATE", "SINCE", "NAMESPACE", "INSTANCES", "REASON"];
    table::render(&heading, &rows, width)
}

fn show(cluster: &ClusterView) -> String {
    let labels: Vec<String> = cluster
        .labels
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    let instances: Vec<String> = cluster.instances.iter().map(ToString::to_string).collect();
    let or_none = |text: String| {
        if text.is_empty() {
            "none".to_owned()
        } else {
            text
        }
    };
    format!(
        "{}  {}\n  reason     {}\n  since      {}\n  namespace  {}\n  labels     {}\n  instances  {}\n",
        cluster.name,
        cluster.state,
        or_none(cluster.reason.clone()),
        cluster.since.rfc3339(),
        cluster.namespace,
        or_none(labels.join(", ")),
        or_none(instances.join(", ")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_out_of_reach_says_why() {
        let view = ClusterView {
            name: "prod".parse().unwrap(),
            state: "unreachable".into(),
            reason: "connection refused".into(),
            since: Timestamp(0),
            namespace: "berth".into(),
            labels: [("pool".to_owned(), "gpu".to_owned())].into(),
            instances: vec!["web.1.0.1".parse().unwrap()],
        };
        let text = clusters(std::slice::from_ref(&view), Timestamp(90_000), Some(120));
        assert_eq!(
            text,
            "NAME  STATE        SINCE  NAMESPACE  INSTANCES  REASON\n\
             prod  unreachable  90s    berth      1          connection refused\n"
        );
        assert!(show(&view).contains("labels     pool=gpu"));
        assert!(clusters(&[], Timestamp(0), None).contains("[[cluster]]"));
    }
}
