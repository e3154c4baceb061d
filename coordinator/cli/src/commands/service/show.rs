use berth_model::api::{InstanceView, ServiceView};
use berth_model::instance::{Phase, Reason};
use berth_model::time::Timestamp;

use crate::{table, words};

/// One service with its instances, why it is not as wanted, and the last lines of what failed.
pub(super) fn service(view: &ServiceView, now: Timestamp, width: Option<usize>) -> String {
    let mut text = format!(
        "{}  {}  {}/{} ready  {}@{} (#{})  revision {}  changed {} ago\n",
        view.name,
        view.state,
        view.ready,
        view.replicas,
        view.model,
        view.version,
        view.serial,
        view.revision,
        words::age(view.updated, now),
    );
    text.push_str(&settings(view));
    for reason in &view.reasons {
        text.push_str(&format!("  ! {reason}\n"));
    }
    if view.revisions.len() > 1 {
        let rows: Vec<Vec<String>> = view
            .revisions
            .iter()
            .map(|r| {
                let ready = format!("{}/{}", r.ready, r.replicas);
                vec![
                    r.number.to_string(),
                    format!("{}@{}", r.model, r.version),
                    ready,
                ]
            })
            .collect();
        text.push('\n');
        text.push_str(&table::render(
            &["REVISION", "MODEL", "READY"],
            &rows,
            width,
        ));
    }
    text.push('\n');
    let rows: Vec<Vec<String>> = view.instances.iter().map(|i| row(i, now)).collect();
    let heading = [
        "INSTANCE", "PHASE", "NODE", "ADDRESS", "RESTARTS", "SINCE", "WHY",
    ];
    text.push_str(&table::render(&heading, &rows, width));
    for instance in view
        .instances
        .iter()
        .filter(|i| !i.status.last_lines.is_empty())
    {
        text.push_str(&format!("\nLast lines of {}:\n", instance.status.id));
        for line in &instance.status.last_lines {
            let clean: String = line
                .chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect();
            text.push_str(&format!("  | {clean}\n"));
        }
    }
    text
}

/// How the wanted revision is run, and whose it is; what is as usual is left out.
fn settings(view: &ServiceView) -> String {
    let current = view.revisions.iter().find(|r| r.number == view.revision);
    let Some(current) = current else {
        return String::new();
    };
    let mut all = vec![format!("runtime {}", current.runtime)];
    if let Some(pool) = &current.pool {
        all.push(format!("pool {pool}"));
    }
    match current.spread.as_deref() {
        None => {}
        Some([]) => all.push("spread over nodes only".to_owned()),
        Some(labels) => all.push(format!("spread over {}", labels.join(", "))),
    }
    if view.max_unavailable != 1 {
        all.push(format!("max_unavailable {}", view.max_unavailable));
    }
    if let Some(fleet) = &view.fleet {
        all.push(format!("declared by fleet {fleet}"));
    }
    format!("  {}\n", all.join("; "))
}

fn row(instance: &InstanceView, now: Timestamp) -> Vec<String> {
    let status = &instance.status;
    // The end before this start says something of what is well now only if it was not wanted.
    let wanted = |reason: &&Reason| {
        status.phase == Phase::Healthy
            && matches!(reason, Reason::StopRequested | Reason::KilledAfterGrace)
    };
    let why = status.reason.as_ref().filter(|reason| !wanted(reason));
    let phase = match instance.stage {
        berth_model::instance::Stage::Running => status.phase.to_string(),
        berth_model::instance::Stage::Draining => "draining".to_owned(),
        berth_model::instance::Stage::Stopping => "stopping".to_owned(),
        berth_model::instance::Stage::Lost => "lost".to_owned(),
    };
    vec![
        status.id.to_string(),
        phase,
        instance.node.to_string(),
        status.address.map(|a| a.to_string()).unwrap_or_default(),
        status.restarts.to_string(),
        words::age(status.since, now),
        why.map(ToString::to_string).unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> ServiceView {
        let digest = format!("sha256:{}", "0".repeat(64));
        serde_json::from_value(serde_json::json!({
            "name": "web", "state": "degraded", "replicas": 2, "ready": 1, "revision": 2,
            "model": "web", "version": "2.0.0", "serial": 2, "reasons": ["1 instance has no node"],
            "max_unavailable": 2, "fleet": "soc",
            "revisions": [
                {"number": 2, "model": "web", "version": "2.0.0", "serial": 2, "digest": digest,
                 "runtime": "docker", "pool": "front", "spread": ["rack"], "replicas": 1, "ready": 0},
                {"number": 1, "model": "web", "version": "1.0.0", "serial": 1, "digest": digest,
                 "runtime": "process", "replicas": 1, "ready": 1}
            ],
            "instances": [
                {"node": "n1", "node_state": "ready", "stage": "running", "created": 0,
                 "status": {"id": "web.2.0.1", "phase": "backoff", "start": 3, "restarts": 2,
                            "reason": {"reason": "exited", "process": "module", "code": 3},
                            "last_lines": ["no weights\u{7}"], "since": 60_000}},
                {"node": "n2", "node_state": "ready", "stage": "draining", "created": 0,
                 "status": {"id": "web.1.0.1", "phase": "healthy", "start": 1, "restarts": 0,
                            "reason": {"reason": "stop-requested"},
                            "address": "127.0.0.1:21000", "last_lines": [], "since": 0}}
            ],
            "created": 0, "updated": 0
        }))
        .unwrap()
    }

    #[test]
    fn what_is_wrong_stands_on_top() {
        let text = service(&view(), Timestamp(90_000), None);
        assert_eq!(text, include_str!("../../../tests/golden/service-show.txt"));
    }
}
