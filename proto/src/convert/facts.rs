use berth_model::node::{Condition, Facts};
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
        }
    }
}
