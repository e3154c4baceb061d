//! What is counted. Each thread writes counters of its own (a shard), so that counting never makes
//! two cores fight over a cache line; a scrape adds the shards up.

mod text;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use berth_model::id::ServiceName;
use http::StatusCode;

pub(crate) use text::{Scrape, ServiceFigures, render};

use crate::refusal::ErrorKind;

/// Upper bounds of the latency histogram's buckets, in microseconds; one more is open.
pub(crate) const BOUNDS: [u64; 16] = [
    500, 1_000, 2_000, 3_000, 5_000, 7_500, 10_000, 20_000, 30_000, 50_000, 100_000, 250_000,
    500_000, 1_000_000, 5_000_000, 30_000_000,
];

/// Classes of status codes: 1xx to 5xx.
const CLASSES: usize = 5;

#[derive(Default)]
#[repr(align(128))]
struct Shard {
    classes: [AtomicU64; CLASSES],
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_us: AtomicU64,
    retries: AtomicU64,
    sit_outs: AtomicU64,
    connect_errors: AtomicU64,
}

/// Counters of one revision; outlives tables.
pub(crate) struct RevisionMetrics {
    pub(crate) service: ServiceName,
    pub(crate) revision: u32,
    shards: Box<[Shard]>,
}

/// The sums over all shards.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) classes: [u64; CLASSES],
    pub(crate) buckets: [u64; BOUNDS.len() + 1],
    pub(crate) sum_us: u64,
    pub(crate) retries: u64,
    pub(crate) sit_outs: u64,
    pub(crate) connect_errors: u64,
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl RevisionMetrics {
    pub(crate) fn new(service: &ServiceName, revision: u32, shards: usize) -> Self {
        Self {
            service: service.clone(),
            revision,
            shards: (0..shards.max(1)).map(|_| Shard::default()).collect(),
        }
    }

    fn shard(&self, thread: usize) -> &Shard {
        &self.shards[thread % self.shards.len()]
    }

    /// A request ended, `time` after its head had come.
    pub(crate) fn request(&self, thread: usize, status: StatusCode, time: Duration) {
        let shard = self.shard(thread);
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES) - 1;
        add(&shard.classes[class], 1);
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().position(|bound| us <= *bound);
        add(&shard.buckets[bucket.unwrap_or(BOUNDS.len())], 1);
        add(&shard.sum_us, us);
    }

    /// A request is sent again because this revision's instance failed it.
    pub(crate) fn retry(&self, thread: usize) {
        add(&self.shard(thread).retries, 1);
    }

    pub(crate) fn sit_out(&self, thread: usize) {
        add(&self.shard(thread).sit_outs, 1);
    }

    pub(crate) fn connect_error(&self, thread: usize) {
        add(&self.shard(thread).connect_errors, 1);
    }

    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for shard in &self.shards {
            for (sum, counter) in totals.classes.iter_mut().zip(&shard.classes) {
                *sum += read(counter);
            }
            for (sum, counter) in totals.buckets.iter_mut().zip(&shard.buckets) {
                *sum += read(counter);
            }
            totals.sum_us += read(&shard.sum_us);
            totals.retries += read(&shard.retries);
            totals.sit_outs += read(&shard.sit_outs);
            totals.connect_errors += read(&shard.connect_errors);
        }
        totals
    }
}

/// The gateway's own answers, by kind.
#[derive(Default)]
pub(crate) struct ErrorCounts([AtomicU64; ErrorKind::ALL.len()]);

impl ErrorCounts {
    pub(crate) fn count(&self, kind: ErrorKind) {
        add(&self.0[kind as usize], 1);
    }

    pub(crate) fn get(&self, kind: ErrorKind) -> u64 {
        read(&self.0[kind as usize])
    }
}

/// Counters of the process that belong to no service.
#[derive(Default)]
pub(crate) struct ProcessMetrics {
    /// Answers to requests that name no known service.
    pub(crate) errors: ErrorCounts,
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) open: AtomicU64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_add_up() {
        let metrics = RevisionMetrics::new(&"dga".parse().unwrap(), 1, 2);
        metrics.request(0, StatusCode::OK, Duration::from_micros(500));
        metrics.request(1, StatusCode::OK, Duration::from_micros(501));
        metrics.request(1, StatusCode::BAD_GATEWAY, Duration::from_secs(100));
        metrics.retry(1);
        let totals = metrics.totals();
        assert_eq!(totals.classes, [0, 2, 0, 0, 1]);
        assert_eq!((totals.buckets[0], totals.buckets[1]), (1, 1));
        assert_eq!(totals.buckets[BOUNDS.len()], 1);
        assert_eq!((totals.sum_us, totals.retries), (100_001_001, 1));
    }

    #[test]
    fn kinds_have_their_own_places() {
        let counts = ErrorCounts::default();
        for (times, kind) in ErrorKind::ALL.into_iter().enumerate() {
            for _ in 0..times {
                counts.count(kind);
            }
        }
        for (times, kind) in ErrorKind::ALL.into_iter().enumerate() {
            assert_eq!(counts.get(kind), u64::try_from(times).unwrap());
        }
    }
}
