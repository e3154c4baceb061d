//! What a relay counts.

use std::sync::atomic::{AtomicU64, Ordering};

use berth_model::relay::RelayStatistics;

/// One counter for each of [`RelayStatistics`], but for what is open.
#[derive(Default)]
pub(crate) struct Metrics {
    pub(crate) accepted: AtomicU64,
    pub(crate) crowded: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) resumed: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) passed: AtomicU64,
    pub(crate) cut: AtomicU64,
    /// Bytes to instances and from them.
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
}

impl Metrics {
    /// One more.
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// As they stand, with so many connections open.
    pub(crate) fn figures(&self, open: usize) -> RelayStatistics {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RelayStatistics {
            open: open as u64,
            accepted: of(&self.accepted),
            refused: of(&self.refused),
            crowded_out: of(&self.crowded),
            resumed: of(&self.resumed),
            not_connected: of(&self.failed),
            passed_on: of(&self.passed),
            cut_off: of(&self.cut),
            to_instances_bytes: of(&self.bytes_in),
            from_instances_bytes: of(&self.bytes_out),
        }
    }
}
