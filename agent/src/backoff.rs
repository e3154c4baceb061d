//! Waiting between attempts, with full jitter.

use std::time::Duration;

/// A sequence of waits whose upper bound doubles.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    bound: Duration,
}

impl Backoff {
    /// Waits of at most `first`, then twice that, up to `most`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            bound: first,
        }
    }

    /// The next wait: anything from nothing to the bound, so that many agents which lost the same
    /// coordinator do not come back together.
    pub fn wait(&mut self) -> Duration {
        let bound = self.bound;
        self.bound = (bound * 2).min(self.most);
        bound.mul_f64(rand::random_range(0.1..=1.0))
    }

    /// From now on the bound does not go beyond `most`.
    pub fn limit(&mut self, most: Duration) {
        self.most = most.max(self.first);
        self.bound = self.bound.min(self.most);
    }

    /// It worked: begin anew.
    pub fn reset(&mut self) {
        self.bound = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_bounded_and_begin_anew() {
        let first = Duration::from_millis(200);
        let mut backoff = Backoff::new(first, Duration::from_secs(15));
        assert!(backoff.wait() <= first);
        for _ in 0..20 {
            assert!(backoff.wait() <= Duration::from_secs(15));
        }
        backoff.limit(Duration::from_secs(1));
        for _ in 0..20 {
            assert!(backoff.wait() <= Duration::from_secs(1));
        }
        backoff.reset();
        assert!(backoff.wait() <= first);
    }
}
