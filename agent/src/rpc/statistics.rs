//! What the agent and its instances use.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_model::id::InstanceId;
use berth_proto::v1;

use super::machine::Machine;
use crate::runtime::{Handle, Runtimes};

/// How often it is looked: reading `/proc` for every process costs more than all the rest of an idle
/// agent. Heartbeats between carry the last figures.
const EVERY: Duration = Duration::from_secs(15);

/// Collects statistics now and then.
pub(super) struct Collector {
    runtimes: Arc<Runtimes>,
    machine: Arc<Machine>,
    last: Option<(Instant, v1::Statistics)>,
}

impl Collector {
    pub(super) fn new(runtimes: Arc<Runtimes>, machine: Arc<Machine>) -> Self {
        Self {
            runtimes,
            machine,
            last: None,
        }
    }

    /// A new session begins: the coordinator may be another one, which knows nothing yet.
    pub(super) fn begin(&mut self) {
        self.last = None;
    }

    /// The figures, looked up anew if they are old.
    pub(super) async fn collect(
        &mut self,
        handles: BTreeMap<InstanceId, Handle>,
    ) -> v1::Statistics {
        if let Some((at, statistics)) = &self.last
            && at.elapsed() < EVERY
            && statistics.instances.len() == handles.len()
        {
            // The coordinator has what was found of the machine.
            return v1::Statistics {
                node: None,
                ..statistics.clone()
            };
        }
        let (runtimes, machine) = (self.runtimes.clone(), self.machine.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let (rss_bytes, cpu_millis) = own();
            let instances = handles
                .iter()
                .map(|(id, handle)| {
                    let stats = runtimes.stats(handle);
                    v1::InstanceStatistics {
                        id: id.to_string(),
                        rss_bytes: stats.rss_bytes,
                        cpu_ms_total: stats.cpu_ms,
                        processes: stats.processes,
                        metrics: String::new(),
                    }
                })
                .collect();
            v1::Statistics {
                rss_bytes,
                cpu_millis,
                instances,
                node: Some(machine.look().into()),
                packages: None,
            }
        });
        let statistics = looked.await.unwrap_or_default();
        self.last = Some((Instant::now(), statistics.clone()));
        statistics
    }
}

/// Resident bytes and processor milliseconds of this process.
fn own() -> (u64, u64) {
    let rss_kib = std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        })
        .unwrap_or(0);
    let usage = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let millis = usage.tv_sec.unsigned_abs() * 1000 + usage.tv_nsec.unsigned_abs() / 1_000_000;
    (rss_kib * 1024, millis)
}
