//! What all threads know of an instance together: its requests in flight, and whether it sits out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use berth_model::id::InstanceId;
use tokio::sync::Notify;

use super::Target;

/// How long one request may try an instance that has sat out before another one may as well.
const PROBE_MS: u64 = 1_000;

/// Shared state of one instance; outlives tables. Aligned so that two instances' counters never
/// share a cache line (or the pair of lines that are fetched together).
#[repr(align(128))]
pub(crate) struct Instance {
    in_flight: AtomicU64,
    /// Failures since the last success.
    failures: AtomicU32,
    /// When the first of these was, in the gateway's milliseconds; 0 if there is none.
    since: AtomicU64,
    /// Until when it sits out, in the gateway's milliseconds; 0 if it does not.
    until: AtomicU64,
    /// Whether the table in force lacks it.
    retired: AtomicBool,
    /// Unique in this process, for pools.
    pub(crate) key: u64,
    pub(crate) id: InstanceId,
    /// Told when the last request of a retired instance ends.
    changed: Arc<Notify>,
}

/// Whether an instance may be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Ready,
    /// It has sat out; one request may try it. Holds the time up to which it sat out.
    Probe(u64),
    /// It sits out until this time.
    SitsOut(u64),
}

impl Instance {
    pub(crate) fn new(id: InstanceId, key: u64, changed: Arc<Notify>) -> Self {
        Self {
            in_flight: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            since: AtomicU64::new(0),
            until: AtomicU64::new(0),
            retired: AtomicBool::new(false),
            key,
            id,
            changed,
        }
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::SeqCst)
    }

    pub(crate) fn set_retired(&self, retired: bool) {
        self.retired.store(retired, Ordering::SeqCst);
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    pub(crate) fn standing(&self, now: u64) -> Standing {
        match self.until.load(Ordering::Relaxed) {
            0 => Standing::Ready,
            until if now < until => Standing::SitsOut(until),
            until => Standing::Probe(until),
        }
    }

    /// Takes the right to try an instance that has sat out; one request gets it.
    pub(super) fn claim_probe(&self, until: u64, now: u64) -> bool {
        self.until
            .compare_exchange(until, now + PROBE_MS, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// Counts a request, unless that would exceed `limit`.
    pub(super) fn enter(&self, limit: Option<u64>) -> bool {
        let before = self.in_flight.fetch_add(1, Ordering::SeqCst);
        if limit.is_some_and(|limit| before >= limit) {
            self.leave();
            return false;
        }
        true
    }

    fn leave(&self) {
        let before = self.in_flight.fetch_sub(1, Ordering::SeqCst);
        if before == 1 && self.retired.load(Ordering::SeqCst) {
            self.changed.notify_one();
        }
    }

    /// It answered.
    pub(crate) fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.since.store(0, Ordering::Relaxed);
            self.until.store(0, Ordering::Relaxed);
        }
    }

    /// For how long it has failed without a success between.
    pub(crate) fn failing_for(&self, now: u64) -> Duration {
        match self.since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_millis(now.saturating_sub(since)),
        }
    }

    /// It failed: sits out for `first`, doubled with every further failure up to `longest`, of which
    /// `spread` (0 to 1) of the second half is taken. Requests that fail together count once.
    /// Returns how long it sits out, if this failure made it so.
    pub(crate) fn failed(
        &self,
        now: u64,
        probe: bool,
        (first, longest): (Duration, Duration),
        spread: f64,
    ) -> Option<Duration> {
        let until = self.until.load(Ordering::Relaxed);
        if until > now && !probe {
            return None;
        }
        let doublings = self.failures.load(Ordering::Relaxed).min(16);
        let full = first.saturating_mul(1 << doublings).min(longest);
        let time = full.mul_f64(0.5 + 0.5 * spread.clamp(0.0, 1.0));
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
        self.until
            .compare_exchange(until, now + millis, Ordering::Relaxed, Ordering::Relaxed)
            .ok()?;
        let _ = self
            .since
            .compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        self.failures.fetch_add(1, Ordering::Relaxed);
        Some(time)
    }
}

/// One request's place at an instance: counted from the choice until this is dropped.
pub(crate) struct Lease {
    pub(crate) target: Arc<Target>,
    /// Whether this request finds out if the instance is well again.
    pub(crate) probe: bool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.target.instance.leave();
        if self.target.revision.concurrency.is_some() {
            self.target.revision.queue.place_free();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACK_OFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

    fn instance() -> Instance {
        Instance::new("dga.1.0.1".parse().unwrap(), 1, Arc::new(Notify::new()))
    }

    #[test]
    fn failures_double_the_time_to_sit_out() {
        let it = instance();
        let mut now = 1_000;
        for expected in [200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000] {
            let time = it.failed(now, false, BACK_OFF, 1.0).unwrap();
            assert_eq!(time.as_millis(), expected);
            let expected = u64::try_from(time.as_millis()).unwrap();
            assert_eq!(
                it.standing(now + expected - 1),
                Standing::SitsOut(now + expected)
            );
            now += expected;
            assert_eq!(it.standing(now), Standing::Probe(now));
        }
        it.succeeded();
        assert_eq!(it.standing(now), Standing::Ready);
        assert_eq!(
            it.failed(now, false, BACK_OFF, 0.0).unwrap().as_millis(),
            100
        );
    }

    #[test]
    fn failures_at_the_same_time_count_once() {
        let it = instance();
        assert!(it.failed(1_000, false, BACK_OFF, 1.0).is_some());
        for _ in 0..50 {
            assert_eq!(it.failed(1_001, false, BACK_OFF, 1.0), None);
        }
        assert!(it.failed(1_300, false, BACK_OFF, 1.0).unwrap().as_millis() == 400);
    }

    /// All threads look before one of them has written down that it failed.
    #[test]
    fn failures_of_many_threads_count_once() {
        let mut now = 1_000;
        for _ in 0..200 {
            let it = instance();
            let start = std::sync::Barrier::new(4);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        start.wait();
                        it.failed(now, false, BACK_OFF, 1.0)
                    });
                }
            });
            now += 1_000;
            let again = it.failed(now, false, BACK_OFF, 1.0).unwrap();
            assert_eq!(again.as_millis(), 400);
        }
    }

    #[test]
    fn how_long_it_has_failed_does_not_depend_on_how_long_it_sits_out() {
        for first in [1, 200, 5_000, 60_000] {
            let it = instance();
            let back_off = (Duration::from_millis(first), Duration::from_secs(60));
            assert_eq!(it.failing_for(1_000), Duration::ZERO);
            let mut now = 1_000;
            for _ in 0..9 {
                let time = it.failed(now, false, back_off, 1.0).unwrap();
                assert_eq!(it.failing_for(now), Duration::from_millis(now - 1_000));
                now += u64::try_from(time.as_millis()).unwrap();
            }
            it.succeeded();
            assert_eq!(it.failing_for(now), Duration::ZERO);
            it.failed(now, false, back_off, 1.0);
            assert_eq!(it.failing_for(now + 7), Duration::from_millis(7));
        }
    }

    #[test]
    fn one_request_probes() {
        let it = instance();
        it.failed(1_000, false, BACK_OFF, 1.0);
        let Standing::Probe(until) = it.standing(1_200) else {
            panic!("not to be probed");
        };
        assert!(it.claim_probe(until, 1_200));
        assert!(!it.claim_probe(until, 1_200));
        assert!(matches!(it.standing(1_201), Standing::SitsOut(_)));
        assert!(it.failed(1_202, true, BACK_OFF, 1.0).unwrap().as_millis() == 400);
    }

    #[test]
    fn the_limit_holds() {
        let it = instance();
        assert!(it.enter(Some(2)) && it.enter(Some(2)) && !it.enter(Some(2)));
        it.leave();
        assert!(it.enter(Some(2)));
        assert_eq!(it.in_flight(), 2);
    }
}
