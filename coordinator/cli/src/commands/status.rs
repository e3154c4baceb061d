use std::collections::BTreeMap;

use anyhow::Result;
use berth_model::api::StatusView;
use berth_model::event::Level;

use crate::args::Reading;
use crate::client::Client;
use crate::output;

pub(super) async fn run(client: &Client, reading: Reading) -> Result<()> {
    let status: StatusView = client.get("/v1/status").await?;
    output::show(reading.output, &status, |_| render(&status))
}

/// "What is wrong?" first, worst first; then what there is.
fn render(status: &StatusView) -> String {
    let mut text = String::new();
    if status.problems.is_empty() {
        text.push_str("All is well.\n");
    }
    for problem in &status.problems {
        let mark = match problem.level {
            Level::Error => "ERROR  ",
            Level::Warning => "warning",
            Level::Info => "info   ",
        };
        text.push_str(&format!(
            "{mark}  {}: {}\n",
            problem.subject, problem.message
        ));
    }
    text.push_str(&format!(
        "\nnodes      {}\nservices   {}\ninstances  {}\n",
        counts(&status.nodes),
        counts(&status.services),
        counts(&status.instances)
    ));
    if !status.jobs.is_empty() {
        text.push_str(&format!("jobs       {}\n", counts(&status.jobs)));
    }
    for gateway in &status.gateways {
        let state = match (gateway.connected, gateway.current) {
            (true, true) => "follows",
            (true, false) => "is behind",
            (false, _) => "is not connected",
        };
        text.push_str(&format!(
            "gateway    {} {state}, {}\n",
            gateway.name, gateway.url
        ));
    }
    if !status.transport.is_empty() {
        text.push_str(&format!("transport  {}\n", status.transport));
    }
    text.push_str(&format!("version    {}\n", status.version));
    text
}

fn counts(by: &BTreeMap<String, u32>) -> String {
    let all: Vec<String> = by
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(what, n)| format!("{n} {what}"))
        .collect();
    if all.is_empty() {
        "none".to_owned()
    } else {
        all.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_model::api::StatusProblem;

    #[test]
    fn problems_come_first() {
        let status = StatusView {
            version: "0.1.0".into(),
            problems: vec![StatusProblem {
                level: Level::Error,
                subject: "node/n1".into(),
                message: "lost for 3m; look at its agent".into(),
            }],
            nodes: [
                ("ready".to_owned(), 1),
                ("lost".to_owned(), 1),
                ("silent".to_owned(), 0),
            ]
            .into(),
            services: BTreeMap::new(),
            instances: BTreeMap::new(),
            gateways: Vec::new(),
            jobs: [("running".to_owned(), 2)].into(),
            transport: "relay".to_owned(),
        };
        assert_eq!(
            render(&status),
            "ERROR    node/n1: lost for 3m; look at its agent\n\n\
             nodes      1 lost, 1 ready\nservices   none\ninstances  none\njobs       2 running\ntransport  relay\nversion    0.1.0\n"
        );
    }
}
