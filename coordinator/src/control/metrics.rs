//! Control's own figures, in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::live::LiveGateway;
use super::views;
use super::world::World;

/// Counters since the start of the process, and the fleet as it was at most a second ago.
#[derive(Debug, Default)]
pub struct Metrics {
    commands: AtomicU64,
    mailbox: AtomicU64,
    plans: AtomicU64,
    plan_nanos: AtomicU64,
    actions: AtomicU64,
    commits: AtomicU64,
    commit_nanos: AtomicU64,
    operations: AtomicU64,
    commit_failures: AtomicU64,
    events: AtomicU64,
    /// Whether the last commit failed.
    store_refuses: AtomicBool,
    fleet: Mutex<Fleet>,
}

#[derive(Debug, Default)]
struct Fleet {
    /// By service and phase.
    instances: BTreeMap<(String, String), u64>,
    nodes: BTreeMap<String, u32>,
    services: BTreeMap<String, u32>,
    jobs: BTreeMap<String, u32>,
    gateways_connected: u64,
    term: u64,
    settling: bool,
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

impl Metrics {
    pub(crate) fn command(&self) {
        self.commands.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn mailbox(&self, depth: usize) {
        self.mailbox.store(depth as u64, Ordering::Relaxed);
    }

    pub(crate) fn planned(&self, took: Duration, actions: usize) {
        self.plans.fetch_add(1, Ordering::Relaxed);
        self.plan_nanos.fetch_add(nanos(took), Ordering::Relaxed);
        self.actions.fetch_add(actions as u64, Ordering::Relaxed);
    }

    pub(crate) fn committed(&self, took: Duration, operations: usize) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.commit_nanos.fetch_add(nanos(took), Ordering::Relaxed);
        self.operations
            .fetch_add(operations as u64, Ordering::Relaxed);
    }

    pub(crate) fn commit_failed(&self) {
        self.commit_failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn store_refuses(&self, refuses: bool) {
        self.store_refuses.store(refuses, Ordering::Relaxed);
    }

    /// Whether the store takes commits, as far as the last one tells.
    pub(crate) fn store_is_well(&self) -> bool {
        !self.store_refuses.load(Ordering::Relaxed)
    }

    pub(crate) fn event(&self) {
        self.events.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes the fleet's figures.
    pub(crate) fn observe(&self, world: &World) {
        let mut instances: BTreeMap<(String, String), u64> = BTreeMap::new();
        for record in world.records.instances.values() {
            let key = (
                record.id.slot.service.to_string(),
                record.status.phase.to_string(),
            );
            *instances.entry(key).or_default() += 1;
        }
        let connected = world.live.gateways.values();
        let there = |g: &&LiveGateway| g.processes.iter().any(|p| p.connection.is_some());
        let connected = connected.filter(there).count();
        let fleet = Fleet {
            instances,
            nodes: views::node::by_state(world),
            services: views::service::by_state(world),
            jobs: views::job::by_state(world),
            gateways_connected: connected as u64,
            term: world.term,
            settling: world.settling,
        };
        *self.fleet.lock().unwrap_or_else(PoisonError::into_inner) = fleet;
    }

    /// How many nodes there are, as of the last look.
    pub fn nodes(&self) -> u64 {
        let fleet = self.fleet.lock().unwrap_or_else(PoisonError::into_inner);
        fleet.nodes.values().map(|count| u64::from(*count)).sum()
    }

    /// Everything as Prometheus reads it.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let plain = [
            (
                "commands_total",
                "counter",
                "Commands taken from the mailbox.",
                get(&self.commands),
            ),
            (
                "mailbox_depth",
                "gauge",
                "Commands waiting when the loop last looked.",
                get(&self.mailbox),
            ),
            (
                "plan_rounds_total",
                "counter",
                "Plans made.",
                get(&self.plans),
            ),
            (
                "plan_actions_total",
                "counter",
                "Actions planned.",
                get(&self.actions),
            ),
            (
                "commits_total",
                "counter",
                "Transactions on disk.",
                get(&self.commits),
            ),
            (
                "commit_operations_total",
                "counter",
                "Keys written or deleted.",
                get(&self.operations),
            ),
            (
                "commit_failures_total",
                "counter",
                "Transactions the store did not take.",
                get(&self.commit_failures),
            ),
            ("events_total", "counter", "Events told.", get(&self.events)),
            (
                "store_refuses",
                "gauge",
                "1 while the store takes no commits.",
                u64::from(!self.store_is_well()),
            ),
        ];
        for (name, kind, help, value) in plain {
            family(&mut out, &format!("control_{name}"), kind, help);
            line(&mut out, &format!("control_{name}"), "", value);
        }
        let seconds = [
            (
                "plan_seconds_total",
                "Time spent planning.",
                get(&self.plan_nanos),
            ),
            (
                "commit_seconds_total",
                "Time spent waiting for the store.",
                get(&self.commit_nanos),
            ),
        ];
        for (name, help, value) in seconds {
            family(&mut out, &format!("control_{name}"), "counter", help);
            let value = Duration::from_nanos(value).as_secs_f64();
            line(&mut out, &format!("control_{name}"), "", value);
        }
        let fleet = self.fleet.lock().unwrap_or_else(PoisonError::into_inner);
        fleet.render(&mut out);
        out
    }
}

impl Fleet {
    fn render(&self, out: &mut String) {
        family(out, "instances", "gauge", "Instances by service and phase.");
        for ((service, phase), n) in &self.instances {
            let labels = format!("{{service=\"{service}\",phase=\"{phase}\"}}");
            line(out, "instances", &labels, n);
        }
        let by_state = [
            ("nodes", "Nodes by state.", &self.nodes),
            ("services", "Services by state.", &self.services),
            ("jobs", "Jobs by state.", &self.jobs),
        ];
        for (name, help, states) in by_state {
            family(out, name, "gauge", help);
            for (state, n) in states {
                line(out, name, &format!("{{state=\"{state}\"}}"), n);
            }
        }
        let plain = [
            (
                "gateways_connected",
                "Gateways that follow the route table.",
                self.gateways_connected,
            ),
            ("control_term", "The coordinator's term.", self.term),
            (
                "control_settling",
                "1 while looking around after a restore.",
                u64::from(self.settling),
            ),
        ];
        for (name, help, value) in plain {
            family(out, name, "gauge", help);
            line(out, name, "", value);
        }
    }
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "# HELP berth_{name} {help}\n# TYPE berth_{name} {kind}"
    );
}

fn line(out: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = writeln!(out, "berth_{name}{labels} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_belongs_to_a_family() {
        let metrics = Metrics::default();
        metrics.command();
        metrics.planned(Duration::from_millis(1_500), 3);
        metrics.observe(&crate::control::testing::world_with_service());
        let text = metrics.render();
        assert!(
            text.contains("\nberth_control_commands_total 1\n"),
            "{text}"
        );
        assert!(
            text.contains("\nberth_control_plan_seconds_total 1.5\n"),
            "{text}"
        );
        assert!(
            text.contains("berth_instances{service=\"web\",phase=\"healthy\"} 1"),
            "{text}"
        );
        for sample in text.lines().filter(|l| !l.starts_with('#')) {
            let name = sample.split(['{', ' ']).next().unwrap();
            assert!(text.contains(&format!("# TYPE {name} ")), "{sample}");
        }
    }
}
