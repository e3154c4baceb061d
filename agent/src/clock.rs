//! The two clocks: boot time for deadlines, wall time for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use berth_model::time::{Monotonic, Timestamp};
use rustix::time::{ClockId, clock_gettime};

/// CLOCK_BOOTTIME in milliseconds.
pub fn now() -> Monotonic {
    let t = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(t.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(t.tv_nsec).unwrap_or(0);
    Monotonic(
        seconds
            .saturating_mul(1000)
            .saturating_add(nanos / 1_000_000),
    )
}

/// Wall-clock time.
pub fn wall() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Sleeps until a boot time. Tokio's clock stands still while a machine is suspended, so that long waits
/// are cut into pieces.
pub async fn sleep_until(at: Monotonic) {
    loop {
        let left = at.since(now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(Duration::from_secs(60))).await;
    }
}
