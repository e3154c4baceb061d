//! The numbers that planning goes by.

use std::net::IpAddr;
use std::time::Duration;

use berth_model::id::InstanceId;

/// The numbers that planning goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where instances listen, and gateways dial them, unless they were told otherwise.
    pub address: IpAddr,
    /// At most one instance is live at a time.
    pub exclusive: bool,
    /// Longest wait before the first restart after an end.
    pub restart_first: Duration,
    /// Longest wait before any restart.
    pub restart_most: Duration,
    /// An instance that was healthy for so long begins with `restart_first` again.
    pub restart_reset: Duration,
    /// An unhealthy instance is restarted after so many times its `unhealthy_after` failed checks.
    pub restart_unhealthy_factor: u32,
    /// Time beyond the stop grace after which the whole tree is killed, past its supervisor.
    pub stop_margin: Duration,
    /// What has ended is not started again: it has stopped, for good (in a Pod).
    pub once: bool,
    /// Nothing is wanted any more, whatever the desired set says: the agent ends with its instances.
    pub ending: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            address: IpAddr::from([127, 0, 0, 1]),
            exclusive: false,
            restart_first: Duration::from_millis(500),
            restart_most: Duration::from_secs(60),
            restart_reset: Duration::from_secs(600),
            restart_unhealthy_factor: 3,
            stop_margin: Duration::from_secs(5),
            once: false,
            ending: false,
        }
    }
}

impl Settings {
    /// How long to wait after the `streak`-th end in a row (from 1): doubling from `restart_first`
    /// to `restart_most`, of which a half is jitter, so that many instances of a broken version
    /// do not beat in time. The jitter depends on the instance and its start alone.
    pub fn back_off(&self, id: &InstanceId, start: u32, streak: u32) -> Duration {
        let doublings = streak.saturating_sub(1).min(16);
        let full = self
            .restart_first
            .saturating_mul(1 << doublings)
            .min(self.restart_most);
        let jitter = f64::from(hash(id, start)) / f64::from(u32::MAX);
        full.mul_f64(0.5 + 0.5 * jitter)
    }
}

/// FNV-1a: the same on every machine and in every version.
fn hash(id: &InstanceId, start: u32) -> u32 {
    let text = id.to_string();
    text.bytes()
        .chain(start.to_le_bytes())
        .fold(0x811c_9dc5, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_to_its_limit_and_differs_between_instances() {
        let settings = Settings::default();
        let a: InstanceId = "web.1.0.1".parse().unwrap();
        let b: InstanceId = "web.1.1.1".parse().unwrap();
        for streak in 1..40 {
            let full =
                Duration::from_millis(500 * (1 << (streak - 1).min(10))).min(settings.restart_most);
            let wait = settings.back_off(&a, streak, streak);
            assert!(wait >= full / 2 && wait <= full, "{streak}: {wait:?}");
        }
        assert!(settings.back_off(&a, 1, u32::MAX) <= settings.restart_most);
        assert_ne!(settings.back_off(&a, 1, 5), settings.back_off(&b, 1, 5));
        assert_eq!(settings.back_off(&a, 1, 5), settings.back_off(&a, 1, 5));
    }
}
