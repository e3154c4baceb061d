//! What nodes do, in Prometheus' text format.

use std::fmt::Write;

use berth_model::node::NodeStatistics;
use berth_model::relay::RelayStatistics;

use crate::control::Machine;

type Figure = (&'static str, &'static str, fn(&NodeStatistics) -> f64);

#[allow(
    clippy::cast_precision_loss,
    reason = "Prometheus' numbers are floating point"
)]
const FIGURES: [Figure; 7] = [
    ("load1", "Runnable processes, average of a minute.", |s| {
        s.load[0]
    }),
    ("uptime_seconds", "Time since the machine booted.", |s| {
        s.uptime_secs as f64
    }),
    ("memory_used_bytes", "Memory in use.", |s| {
        s.memory_used_bytes as f64
    }),
    (
        "memory_available_bytes",
        "Memory that new programs can have.",
        |s| s.memory_available_bytes as f64,
    ),
    (
        "disk_bytes",
        "Size of the file system of the agent's data.",
        |s| s.disk_total_bytes as f64,
    ),
    ("disk_free_bytes", "What is free there.", |s| {
        s.disk_free_bytes as f64
    }),
    ("packages_bytes", "Unpacked packages.", |s| {
        s.packages_bytes as f64
    }),
];

type RelayFigure = (&'static str, &'static str, fn(&RelayStatistics) -> u64);

/// Since the relay's process began.
const RELAYS: [RelayFigure; 8] = [
    (
        "relay_connections_total",
        "Connections that came, whosever they were.",
        |s| s.accepted,
    ),
    (
        "relay_refused_total",
        "Connections that were turned away: strangers, and callers that are not on the list.",
        |s| s.refused,
    ),
    (
        "relay_crowded_out_total",
        "Connections that found no place for a handshake.",
        |s| s.crowded_out,
    ),
    (
        "relay_not_connected_total",
        "Callers that asked for what is not there, or does not answer.",
        |s| s.not_connected,
    ),
    (
        "relay_passed_on_total",
        "Connections passed on to instances.",
        |s| s.passed_on,
    ),
    (
        "relay_cut_off_total",
        "Connections cut off: the caller or the instance was taken from the table.",
        |s| s.cut_off,
    ),
    (
        "relay_to_instances_bytes_total",
        "Bytes to instances.",
        |s| s.to_instances_bytes,
    ),
    (
        "relay_from_instances_bytes_total",
        "Bytes from instances.",
        |s| s.from_instances_bytes,
    ),
];

/// All nodes; of those that are not connected only the conditions.
pub(super) fn render(machines: &[Machine]) -> String {
    let mut out = String::new();
    let said = || {
        machines
            .iter()
            .filter_map(|m| Some((m, m.statistics.as_ref()?)))
    };
    for (name, help, value) in FIGURES {
        family(&mut out, name, help);
        for (machine, statistics) in said() {
            line(&mut out, name, machine, "", value(statistics));
        }
    }
    family(&mut out, "memory_bytes", "Memory in all.");
    for (machine, _) in said() {
        line(
            &mut out,
            "memory_bytes",
            machine,
            "",
            machine.capacity.memory_bytes,
        );
    }
    family(&mut out, "gpu_memory_used_bytes", "A GPU's memory in use.");
    for (machine, statistics) in said() {
        for gpu in &statistics.gpus {
            let label = format!(",gpu=\"{}\"", escaped(&gpu.uuid));
            line(
                &mut out,
                "gpu_memory_used_bytes",
                machine,
                &label,
                gpu.memory_used_bytes,
            );
        }
    }
    family(
        &mut out,
        "gpu_busy_percent",
        "How much of the time a GPU computes.",
    );
    for (machine, statistics) in said() {
        for gpu in &statistics.gpus {
            let Some(busy) = gpu.busy_percent else {
                continue;
            };
            let label = format!(",gpu=\"{}\"", escaped(&gpu.uuid));
            line(&mut out, "gpu_busy_percent", machine, &label, busy);
        }
    }
    relays(&mut out, &said);
    family(&mut out, "condition", "1 for each condition that holds.");
    for machine in machines {
        for condition in &machine.conditions {
            let label = format!(",condition=\"{}\"", escaped(condition));
            line(&mut out, "condition", machine, &label, 1);
        }
    }
    out
}

fn family(out: &mut String, name: &str, help: &str) {
    let kind = match name.ends_with("_total") {
        true => "counter",
        false => "gauge",
    };
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "# HELP berth_node_{name} {help}\n# TYPE berth_node_{name} {kind}"
    );
}

/// What relays have done, and the connections that they have.
fn relays<'a, I>(out: &mut String, said: &impl Fn() -> I)
where
    I: Iterator<Item = (&'a Machine, &'a NodeStatistics)>,
{
    let open: RelayFigure = (
        "relay_open_connections",
        "Callers' connections that are open.",
        |s| s.open,
    );
    for (name, help, value) in RELAYS.into_iter().chain([open]) {
        family(out, name, help);
        for (machine, statistics) in said() {
            if let Some(relay) = &statistics.relay {
                line(out, name, machine, "", value(relay));
            }
        }
    }
}

fn line(
    out: &mut String,
    name: &str,
    machine: &Machine,
    labels: &str,
    value: impl std::fmt::Display,
) {
    let node = &machine.node;
    let _ = writeln!(out, "berth_node_{name}{{node=\"{node}\"{labels}}} {value}");
}

/// What an agent says may hold anything.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use berth_model::node::GpuStatistics;
    use berth_model::resources::Resources;

    use super::*;

    #[test]
    fn every_node_that_is_there_has_its_figures_and_every_condition_its_line() {
        let machine = |node: &str, statistics, conditions: &[&str]| Machine {
            node: node.parse().unwrap(),
            statistics,
            capacity: Resources {
                memory_bytes: 100,
                ..Resources::default()
            },
            conditions: conditions.iter().map(|c| (*c).to_owned()).collect(),
        };
        let statistics = NodeStatistics {
            load: [0.5, 0.0, 0.0],
            disk_free_bytes: 7,
            gpus: vec![GpuStatistics {
                uuid: "GPU-\"1".into(),
                memory_used_bytes: 3,
                busy_percent: None,
            }],
            relay: Some(RelayStatistics {
                open: 3,
                refused: 2,
                ..RelayStatistics::default()
            }),
            ..NodeStatistics::default()
        };
        let text = render(&[
            machine("a", Some(statistics), &[]),
            machine("b", None, &["disk-full"]),
        ]);
        for expected in [
            "berth_node_load1{node=\"a\"} 0.5\n",
            "berth_node_disk_free_bytes{node=\"a\"} 7\n",
            "berth_node_memory_bytes{node=\"a\"} 100\n",
            "berth_node_gpu_memory_used_bytes{node=\"a\",gpu=\"GPU-\\\"1\"} 3\n",
            "berth_node_relay_open_connections{node=\"a\"} 3\n",
            "# TYPE berth_node_relay_refused_total counter\nberth_node_relay_refused_total{node=\"a\"} 2\n",
            "berth_node_condition{node=\"b\",condition=\"disk-full\"} 1\n",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        assert!(!text.contains("berth_node_load1{node=\"b\"}"));
        assert!(!text.contains("gpu_busy_percent{"));
        for sample in text.lines().filter(|l| !l.starts_with('#')) {
            let name = sample.split('{').next().unwrap();
            assert!(text.contains(&format!("# TYPE {name} ")), "{sample}");
        }
    }
}
