//! Emptying a node, and how far that is.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use berth_model::api::{DrainNode, DrainView, NodeView};
use berth_model::id::NodeName;
use berth_model::problem::Problem;

use crate::args::Drain;
use crate::client::Client;
use crate::commands::logs;
use crate::output;
use crate::progress::note;
use crate::words;

/// Pause between looks.
const LOOK: Duration = Duration::from_millis(200);
/// How much longer than the deadline it may take until the last instance has stopped.
const STOPPING: Duration = Duration::from_secs(300);

pub(super) async fn run(client: &Client, drain: Drain) -> Result<ExitCode> {
    let node = &drain.node;
    let body = DrainNode {
        deadline: drain.deadline,
        force: drain.force,
    };
    let path = format!("/v1/nodes/{node}/drain");
    let view: NodeView = client.post(&path, &body).await?;
    if drain.no_wait {
        let state = view.drain.as_ref().map_or_else(String::new, progress);
        output::line(&format!("{node} is drained from now on: {state}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    follow(client, node, view).await
}

async fn follow(client: &Client, node: &NodeName, first: NodeView) -> Result<ExitCode> {
    let left = first.drain.as_ref().map(|d| d.left.0).unwrap_or_default();
    let until = Instant::now() + left + STOPPING;
    let mut view = first;
    let mut told = String::new();
    loop {
        let Some(drain) = &view.drain else {
            return Err(uncordoned(node).into());
        };
        if drain.drained.is_some() {
            output::line(&format!("{node} is drained: {} moved", drain.moved))?;
            return Ok(ExitCode::SUCCESS);
        }
        if drain.stuck || Instant::now() >= until {
            note(&not_empty(node, drain));
            return Ok(ExitCode::FAILURE);
        }
        let now = moved(drain);
        if now != told {
            note(&format!("{node}: {now}"));
            told = now;
        }
        tokio::time::sleep(LOOK).await;
        match client.get(&format!("/v1/nodes/{node}")).await {
            Ok(next) => view = next,
            Err(error) if logs::is_final(&error) => return Err(error),
            // The coordinator is away: what was asked for still stands.
            Err(error) if Instant::now() >= until => return Err(error),
            Err(_) => {}
        }
    }
}

fn uncordoned(node: &NodeName) -> Problem {
    Problem::conflict(format!(
        "somebody let {node} take instances again before it was empty; `berth events` says when"
    ))
}

/// `1 of 3 moved`, and the first thing that it waits for.
fn moved(drain: &DrainView) -> String {
    let why = drain.reasons.first().map(|r| format!(": {r}"));
    format!(
        "{} of {} moved{}",
        drain.moved,
        drain.total,
        why.unwrap_or_default()
    )
}

fn not_empty(node: &NodeName, drain: &DrainView) -> String {
    let mut text = format!(
        "error: {node} is not empty and the deadline is over: {} of {} moved",
        drain.moved, drain.total
    );
    for reason in &drain.reasons {
        text.push_str(&format!("\n  {reason}"));
    }
    text.push_str(&format!(
        "\nIt goes on by itself when there is room; see `berth node show {node}`."
    ));
    text
}

/// How far it is, in one line.
pub(super) fn progress(drain: &DrainView) -> String {
    let moved = format!("{} of {} moved", drain.moved, drain.total);
    match (drain.drained, drain.left.as_millis()) {
        (Some(at), _) => format!("{moved}, empty since {}", at.rfc3339()),
        (None, 0) => format!("{moved}, the deadline is over"),
        (None, _) => {
            let then = if drain.force { ", then by force" } else { "" };
            format!(
                "{moved}, deadline in {}{then}",
                words::duration(drain.left.0)
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use berth_model::time::{Span, Timestamp};

    use super::*;

    #[test]
    fn it_says_how_far_it_is() {
        let mut drain = DrainView {
            started: Timestamp(0),
            total: 3,
            moved: 1,
            left: Span::secs(150),
            force: true,
            stuck: false,
            drained: None,
            reasons: vec!["no-spare-node: web.1.0.1 stays".to_owned()],
        };
        assert_eq!(
            moved(&drain),
            "1 of 3 moved: no-spare-node: web.1.0.1 stays"
        );
        assert_eq!(
            progress(&drain),
            "1 of 3 moved, deadline in 2m, then by force"
        );
        drain.left = Span::secs(0);
        assert_eq!(progress(&drain), "1 of 3 moved, the deadline is over");
        (drain.moved, drain.drained) = (3, Some(Timestamp(1_000)));
        assert_eq!(
            progress(&drain),
            "3 of 3 moved, empty since 1970-01-01T00:00:01.000Z"
        );
    }
}
