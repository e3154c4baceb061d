//! The only place where control reads a clock.

use std::time::{SystemTime, UNIX_EPOCH};

use berth_model::time::{Monotonic, Timestamp};

/// Where control has its time from; an argument, so that tests run on a clock of their own.
pub trait Clock: Send + Sync + 'static {
    /// For leases and deadlines: never jumps and goes on while the machine is suspended.
    fn monotonic(&self) -> Monotonic;
    /// For people and records.
    fn wall(&self) -> Timestamp;
}

/// CLOCK_BOOTTIME and the system's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn monotonic(&self) -> Monotonic {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
        Monotonic(seconds.saturating_mul(1_000) + nanos / 1_000_000)
    }

    fn wall(&self) -> Timestamp {
        // A clock before 1970 is wrong anyway; zero is as good a record of it as any.
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_goes_on() {
        let before = SystemClock.monotonic();
        assert!(SystemClock.monotonic() >= before && before.0 > 0);
        assert!(SystemClock.wall().0 > 1_600_000_000_000);
    }
}
