use berth_model::api::{JobStatus, JobView, ShardState, ShardView};
use berth_model::job::TaskFailure;
use berth_model::time::Timestamp;

use crate::{table, words};

/// Shards that are listed beside those that matter.
const SHOWN: usize = 40;

/// One job with its shards, and why it failed or does not get on.
pub(super) fn job(view: &JobView, now: Timestamp, width: Option<usize>) -> String {
    let took = match view.ended {
        Some(ended) => format!("took {}", words::duration(view.created.age(ended))),
        None => format!("for {}", words::age(view.created, now)),
    };
    let mut text = format!(
        "{}  {}  {took}  {}@{} (#{})  {}\n",
        view.name, view.state, view.model, view.version, view.serial, view.runtime,
    );
    let deadline = view.deadline.map(|d| format!(", deadline {d}"));
    text.push_str(&format!(
        "  {} of {} shards done, {} running, {} waiting; {} of {} retries used, {} at a time{}\n",
        view.done,
        view.completions,
        view.running,
        view.waiting,
        view.failed.min(view.retries),
        view.retries,
        view.parallelism,
        deadline.unwrap_or_default(),
    ));
    if let Some(reason) = &view.reason {
        text.push_str(&format!("  ! failed: {reason}\n"));
    }
    for reason in &view.reasons {
        text.push_str(&format!("  ! {reason}\n"));
    }
    if let Some(note) = &view.note {
        text.push_str(&format!("  {note}\n"));
    }
    text.push('\n');
    text.push_str(&shards(&view.shards, now, width));
    for failure in &view.failures {
        text.push_str(&failed(failure));
    }
    if view.state == JobStatus::Succeeded {
        text.push_str(&format!("\nThe output: berth job output {}\n", view.name));
    }
    text
}

/// Of many shards those that work first, then those that wait, then those that are done.
fn shards(shards: &[ShardView], now: Timestamp, width: Option<usize>) -> String {
    let mut sorted: Vec<&ShardView> = shards.iter().collect();
    let hidden = sorted.len().saturating_sub(SHOWN);
    if hidden > 0 {
        sorted.sort_by_key(|s| match s.state {
            ShardState::Running => 0,
            ShardState::Waiting => 1,
            ShardState::Done => 2,
        });
        sorted.truncate(SHOWN);
    }
    let rows: Vec<Vec<String>> = sorted.into_iter().map(|s| row(s, now)).collect();
    let heading = [
        "INDEX", "STATE", "INPUT", "TRIES", "TASK", "PHASE", "NODE", "SINCE", "OUTPUT", "WHY",
    ];
    let mut text = table::render(&heading, &rows, width);
    if hidden > 0 {
        text.push_str(&format!("… and {hidden} more; -o json has all\n"));
    }
    text
}

fn row(shard: &ShardView, now: Timestamp) -> Vec<String> {
    let task = shard.task.as_ref();
    let status = task.map(|t| &t.status);
    let output = shard.output.as_ref().map(|output| {
        let kind = if output.folder { " (folder)" } else { "" };
        format!("{}{kind}", words::bytes(output.bytes))
    });
    vec![
        shard.index.to_string(),
        shard.state.to_string(),
        words::bytes(shard.input_bytes),
        shard.attempts.to_string(),
        status.map(|s| s.id.to_string()).unwrap_or_default(),
        status.map(|s| s.phase.to_string()).unwrap_or_default(),
        task.map(|t| t.node.to_string()).unwrap_or_default(),
        status.map(|s| words::age(s.since, now)).unwrap_or_default(),
        output.unwrap_or_default(),
        status
            .and_then(|s| s.reason.as_ref())
            .map(ToString::to_string)
            .unwrap_or_default(),
    ]
}

/// How an attempt ended, with its last lines.
pub(super) fn failed(failure: &TaskFailure) -> String {
    let mut text = format!("\n{} failed: {}\n", failure.task, failure.reason);
    for line in &failure.last_lines {
        let clean: String = line
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        text.push_str(&format!("  | {clean}\n"));
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn view() -> JobView {
        serde_json::from_value(serde_json::json!({
            "name": "score", "state": "running", "model": "dga", "version": "1.0.0", "serial": 1,
            "digest": format!("sha256:{}", "0".repeat(64)), "runtime": "process",
            "completions": 3, "parallelism": 2, "retries": 3, "deadline": "10m",
            "done": 1, "running": 1, "waiting": 1, "failed": 1,
            "shards": [
                {"index": 0, "state": "done", "input_bytes": 2048, "attempts": 1,
                 "output": {"blob": format!("blake3:{}", "1".repeat(64)), "bytes": 10}},
                {"index": 1, "state": "running", "input_bytes": 100, "attempts": 2,
                 "task": {"node": "n1", "node_state": "ready", "stage": "running", "created": 0,
                          "status": {"id": "score.1.1.2", "phase": "starting", "since": 60_000}}},
                {"index": 2, "state": "waiting", "input_bytes": 0, "attempts": 0}
            ],
            "reasons": ["1 instance has no node: 2 nodes: 2 taken (exclusive)"],
            "failures": [
                {"task": "score.1.1.1", "reason": {"reason": "exited", "process": "task", "code": 3},
                 "last_lines": ["reading", "no such\u{7} column"], "time": 30_000}
            ],
            "note": "the input has 3 lines: 3 shards instead of 8",
            "created": 0
        }))
        .unwrap()
    }

    #[test]
    fn a_job_is_shown_with_what_went_wrong() {
        let text = job(&view(), Timestamp(90_000), None);
        assert_eq!(text, include_str!("../../../tests/golden/job-show.txt"));
    }

    #[test]
    fn of_many_shards_the_working_ones_are_shown() {
        let mut many = view();
        let done = many.shards[0].clone();
        many.shards = (0..100)
            .map(|index| ShardView {
                index,
                ..done.clone()
            })
            .collect();
        many.shards[99].state = ShardState::Running;
        let text = job(&many, Timestamp(90_000), None);
        assert!(text.contains("… and 60 more"), "{text}");
        assert!(text.contains("\n99     running"), "{text}");
    }
}
