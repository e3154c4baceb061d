//! Waiting longer after each failure, never all at the same time.

use std::time::Duration;

use rand::Rng;

/// Doubling waits with full jitter over their upper half.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            next: first,
        }
    }

    /// The next wait.
    pub(crate) fn step(&mut self) -> Duration {
        let base = self.next;
        self.next = (base * 2).min(self.most);
        base.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// After a success.
    pub(crate) fn start_over(&mut self) {
        self.next = self.first;
    }
}

impl Iterator for Backoff {
    type Item = Duration;
    fn next(&mut self) -> Option<Duration> {
        Some(self.step())
    }
}

impl kube::runtime::utils::Backoff for Backoff {
    fn reset(&mut self) {
        self.start_over();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_most_and_start_over() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(300));
        for most in [100, 200, 300, 300] {
            let wait = backoff.step();
            assert!(
                wait >= ms(most / 2) && wait <= ms(most),
                "{wait:?} of {most}"
            );
        }
        backoff.start_over();
        assert!(backoff.step() <= ms(100));
    }
}
