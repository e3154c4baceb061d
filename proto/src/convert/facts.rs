use berth_model::digest::PackageDigest;
use berth_model::node::{Condition, Facts, Gpu, GpuStatistics, Isolation, NodeStatistics};
use berth_model::relay::{RelayFacts, RelayStatistics};
use berth_model::resources::Resources;

use super::{word, word_of};
use crate::v1;

impl From<Resources> for v1::Resources {
    fn from(r: Resources) -> Self {
        Self {
            cpu_millis: r.cpu_millis,
            memory_bytes: r.memory_bytes,
            gpus: r.gpus,
            disk_bytes: r.disk_bytes,
        }
    }
}

impl From<v1::Resources> for Resources {
    fn from(r: v1::Resources) -> Self {
        Self {
            cpu_millis: r.cpu_millis,
            memory_bytes: r.memory_bytes,
            gpus: r.gpus,
            disk_bytes: r.disk_bytes,
        }
    }
}

impl From<Facts> for v1::Facts {
    fn from(facts: Facts) -> Self {
        Self {
            kind: word_of(&facts.kind),
            exclusive: facts.exclusive,
            capacity: Some(facts.capacity.into()),
            labels: facts.labels.into_iter().collect(),
            runtimes: facts.runtimes.iter().map(word_of).collect(),
            modules: facts.modules,
            hostname: facts.hostname,
            os: facts.os,
            arch: facts.arch,
            agent_version: facts.agent_version,
            machine_id: facts.machine_id,
            boot_id: facts.boot_id,
            conditions: facts
                .conditions
                .into_iter()
                .map(|condition| v1::Condition {
                    kind: condition.kind,
                    message: condition.message,
                })
                .collect(),
            gpus: facts.gpus.into_iter().map(Into::into).collect(),
            virtualization: facts.virtualization.unwrap_or_default(),
            relay: facts.relay.map(|relay| v1::RelayFacts {
                address: relay.address.to_string(),
                key: relay.key,
            }),
            isolation: facts.isolation.map(|isolation| v1::Isolation {
                launcher: isolation.launcher,
                enforced: isolation.enforced,
                missing: isolation.missing,
            }),
        }
    }
}

/// Never fails: what a newer agent says in words unknown here is left out or taken as the default.
impl From<v1::Facts> for Facts {
    fn from(facts: v1::Facts) -> Self {
        Self {
            kind: word(&facts.kind).unwrap_or_default(),
            exclusive: facts.exclusive,
            capacity: facts.capacity.unwrap_or_default().into(),
            labels: facts.labels.into_iter().collect(),
            modules: facts.modules,
            runtimes: facts
                .runtimes
                .iter()
                .filter_map(|text| word(text))
                .collect(),
            hostname: facts.hostname,
            os: facts.os,
            arch: facts.arch,
            agent_version: facts.agent_version,
            machine_id: facts.machine_id,
            boot_id: facts.boot_id,
            conditions: facts
                .conditions
                .into_iter()
                .map(|condition| Condition {
                    kind: condition.kind,
                    message: condition.message,
                })
                .collect(),
            gpus: facts.gpus.into_iter().map(Into::into).collect(),
            virtualization: Some(facts.virtualization).filter(|name| !name.is_empty()),
            // An address that cannot be read is none.
            relay: facts.relay.and_then(|relay| {
                Some(RelayFacts {
                    address: relay.address.parse().ok()?,
                    key: relay.key,
                })
            }),
            isolation: facts.isolation.map(|isolation| Isolation {
                launcher: isolation.launcher,
                enforced: isolation.enforced,
                missing: isolation.missing,
            }),
        }
    }
}

impl From<Gpu> for v1::Gpu {
    fn from(gpu: Gpu) -> Self {
        Self {
            uuid: gpu.uuid,
            name: gpu.name,
            memory_bytes: gpu.memory_bytes,
            driver: gpu.driver,
        }
    }
}

impl From<v1::Gpu> for Gpu {
    fn from(gpu: v1::Gpu) -> Self {
        Self {
            uuid: gpu.uuid,
            name: gpu.name,
            memory_bytes: gpu.memory_bytes,
            driver: gpu.driver,
        }
    }
}

impl From<NodeStatistics> for v1::NodeStatistics {
    fn from(node: NodeStatistics) -> Self {
        let [load_1, load_5, load_15] = node.load;
        Self {
            load_1,
            load_5,
            load_15,
            uptime_secs: node.uptime_secs,
            memory_used_bytes: node.memory_used_bytes,
            memory_available_bytes: node.memory_available_bytes,
            disk_total_bytes: node.disk_total_bytes,
            disk_free_bytes: node.disk_free_bytes,
            packages_bytes: node.packages_bytes,
            gpus: node
                .gpus
                .into_iter()
                .map(|gpu| v1::GpuStatistics {
                    uuid: gpu.uuid,
                    memory_used_bytes: gpu.memory_used_bytes,
                    busy_percent: gpu.busy_percent,
                })
                .collect(),
            relay: node.relay.map(Into::into),
        }
    }
}

/// Never fails: a load that is no number counts as none.
impl From<v1::NodeStatistics> for NodeStatistics {
    fn from(node: v1::NodeStatistics) -> Self {
        let finite = |load: f64| if load.is_finite() { load } else { 0.0 };
        Self {
            load: [node.load_1, node.load_5, node.load_15].map(finite),
            uptime_secs: node.uptime_secs,
            memory_used_bytes: node.memory_used_bytes,
            memory_available_bytes: node.memory_available_bytes,
            disk_total_bytes: node.disk_total_bytes,
            disk_free_bytes: node.disk_free_bytes,
            packages_bytes: node.packages_bytes,
            gpus: node
                .gpus
                .into_iter()
                .map(|gpu| GpuStatistics {
                    uuid: gpu.uuid,
                    memory_used_bytes: gpu.memory_used_bytes,
                    busy_percent: gpu.busy_percent,
                })
                .collect(),
            relay: node.relay.map(Into::into),
        }
    }
}

impl From<RelayStatistics> for v1::RelayStatistics {
    fn from(relay: RelayStatistics) -> Self {
        Self {
            open: relay.open,
            accepted: relay.accepted,
            refused: relay.refused,
            crowded_out: relay.crowded_out,
            resumed: relay.resumed,
            not_connected: relay.not_connected,
            passed_on: relay.passed_on,
            cut_off: relay.cut_off,
            to_instances_bytes: relay.to_instances_bytes,
            from_instances_bytes: relay.from_instances_bytes,
        }
    }
}

impl From<v1::RelayStatistics> for RelayStatistics {
    fn from(relay: v1::RelayStatistics) -> Self {
        Self {
            open: relay.open,
            accepted: relay.accepted,
            refused: relay.refused,
            crowded_out: relay.crowded_out,
            resumed: relay.resumed,
            not_connected: relay.not_connected,
            passed_on: relay.passed_on,
            cut_off: relay.cut_off,
            to_instances_bytes: relay.to_instances_bytes,
            from_instances_bytes: relay.from_instances_bytes,
        }
    }
}

impl FromIterator<PackageDigest> for v1::PackageList {
    fn from_iter<T: IntoIterator<Item = PackageDigest>>(digests: T) -> Self {
        let bytes = |digest: PackageDigest| digest.as_bytes().to_vec().into();
        Self {
            digests: digests.into_iter().map(bytes).collect(),
        }
    }
}

impl v1::PackageList {
    /// The digests; what is none is left out.
    pub fn digests(&self) -> impl Iterator<Item = PackageDigest> {
        let bytes = self.digests.iter();
        bytes.filter_map(|bytes| Some(PackageDigest::from_bytes(bytes[..].try_into().ok()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_machine_has_and_does_survives_the_wire() {
        let facts = Facts {
            gpus: vec![Gpu {
                uuid: "GPU-1".into(),
                name: "NVIDIA H200".into(),
                memory_bytes: 1 << 37,
                driver: "570.1".into(),
            }],
            virtualization: Some("kvm".into()),
            isolation: Some(Isolation {
                launcher: "fork".into(),
                enforced: vec!["memory".into()],
                missing: vec!["egress: no".into()],
            }),
            ..Facts::default()
        };
        assert_eq!(Facts::from(v1::Facts::from(facts.clone())), facts);
        let bare = Facts::default();
        assert_eq!(Facts::from(v1::Facts::from(bare.clone())), bare);
        let statistics = NodeStatistics {
            load: [0.5, 1.0, 1.5],
            uptime_secs: 1,
            memory_used_bytes: 2,
            memory_available_bytes: 3,
            disk_total_bytes: 4,
            disk_free_bytes: 5,
            packages_bytes: 6,
            gpus: vec![GpuStatistics {
                uuid: "GPU-1".into(),
                memory_used_bytes: 7,
                busy_percent: Some(0),
            }],
            relay: Some(RelayStatistics {
                open: 8,
                accepted: 9,
                refused: 10,
                crowded_out: 11,
                resumed: 12,
                not_connected: 13,
                passed_on: 14,
                cut_off: 15,
                to_instances_bytes: 16,
                from_instances_bytes: 17,
            }),
        };
        let wire = v1::NodeStatistics::from(statistics.clone());
        assert_eq!(NodeStatistics::from(wire.clone()), statistics);
        let odd = v1::NodeStatistics {
            load_1: f64::NAN,
            ..wire
        };
        assert_eq!(NodeStatistics::from(odd).load, [0.0, 1.0, 1.5]);
    }

    #[test]
    fn a_list_of_packages_leaves_out_what_is_no_digest() {
        let digests = [1, 2].map(|n| PackageDigest::from_bytes([n; 32]));
        let mut list: v1::PackageList = digests.into_iter().collect();
        list.digests.insert(1, vec![9; 31].into());
        assert_eq!(list.digests().collect::<Vec<_>>(), digests);
    }
}
