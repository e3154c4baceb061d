//! What an instance asks for and a node has.

use serde::{Deserialize, Serialize};

/// Amounts of a machine. As a request: what an instance reserves; zero means "no claim".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Processor time in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Whole GPUs.
    pub gpus: u32,
    /// Disk space in bytes.
    pub disk_bytes: u64,
}

impl Resources {
    /// Whether every amount of `self` fits into `free`.
    pub fn fits(&self, free: &Resources) -> bool {
        self.cpu_millis <= free.cpu_millis
            && self.memory_bytes <= free.memory_bytes
            && self.gpus <= free.gpus
            && self.disk_bytes <= free.disk_bytes
    }

    /// What is left of `self` when `used` is taken; amounts never go below zero.
    #[must_use]
    pub fn less(&self, used: &Resources) -> Resources {
        Resources {
            cpu_millis: self.cpu_millis.saturating_sub(used.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_sub(used.memory_bytes),
            gpus: self.gpus.saturating_sub(used.gpus),
            disk_bytes: self.disk_bytes.saturating_sub(used.disk_bytes),
        }
    }

    /// `self` and `more` together; amounts never overflow.
    #[must_use]
    pub fn plus(&self, more: &Resources) -> Resources {
        Resources {
            cpu_millis: self.cpu_millis.saturating_add(more.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_add(more.memory_bytes),
            gpus: self.gpus.saturating_add(more.gpus),
            disk_bytes: self.disk_bytes.saturating_add(more.disk_bytes),
        }
    }
}
