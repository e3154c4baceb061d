//! A limit on what is downloaded, shared by all downloads.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use berth_model::time::Bytes;
use tokio::time::Instant;

/// What may pass at once after a pause.
const BURST: Duration = Duration::from_millis(100);

/// A token bucket. It has no clock: time is an argument.
#[derive(Debug, Clone)]
struct Bucket {
    /// Bytes a second; never zero.
    rate: u64,
    /// When all that was let pass has been paid for.
    paid: Duration,
}

impl Bucket {
    /// Lets `bytes` pass, and tells how long to wait before. Whoever comes later waits longer.
    fn take(&mut self, now: Duration, bytes: u64) -> Duration {
        let begin = self.paid.max(now);
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.paid = begin.saturating_add(cost);
        (begin - now).saturating_sub(BURST)
    }
}

/// Paces downloads. Each asks for a piece at a time, so that all get on alike.
#[derive(Debug)]
pub(crate) struct Limit {
    bucket: Mutex<Bucket>,
    begun: Instant,
    piece: u64,
}

impl Limit {
    /// At most so many bytes a second, at least one.
    pub(crate) fn new(rate: Bytes) -> Self {
        let rate = rate.0.max(1);
        Self {
            bucket: Mutex::new(Bucket {
                rate,
                paid: Duration::ZERO,
            }),
            begun: Instant::now(),
            piece: (rate / 16).clamp(16 << 10, 1 << 20),
        }
    }

    /// Waits for its turn; tells how many of the `left` bytes may be asked for then. They are asked for one request at a
    /// time and read at full speed: what waits unread would hold up the connection that all share.
    pub(crate) async fn pass(&self, left: u64) -> u64 {
        let piece = left.min(self.piece);
        let wait = {
            // A panic elsewhere does not make the bucket wrong.
            let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
            bucket.take(self.begun.elapsed(), piece)
        };
        tokio::time::sleep(wait).await;
        piece
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn nothing_waits_within_the_rate_and_everything_beyond_it() {
        let mut bucket = Bucket {
            rate: 1000,
            paid: Duration::ZERO,
        };
        assert_eq!(bucket.take(SECOND, 1000), Duration::ZERO);
        assert_eq!(bucket.take(SECOND, 500), SECOND - BURST);
        assert_eq!(bucket.take(SECOND, 1), SECOND + SECOND / 2 - BURST);
        // What was not used is not saved up beyond the burst.
        assert_eq!(bucket.take(1000 * SECOND, 1000), Duration::ZERO);
        assert_eq!(bucket.take(1000 * SECOND, 1000), SECOND - BURST);
        assert!(bucket.take(SECOND, u64::MAX) > SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn downloads_at_once_share_the_rate_alike() {
        let limit = Arc::new(Limit::new(Bytes(1 << 20)));
        let download = |limit: Arc<Limit>| {
            tokio::spawn(async move {
                let mut have = 0;
                while limit.begun.elapsed() < 10 * SECOND {
                    have += limit.pass(u64::MAX).await;
                }
                have
            })
        };
        let downloads = [
            download(limit.clone()),
            download(limit.clone()),
            download(limit),
        ];
        let mut had = Vec::new();
        for download in downloads {
            had.push(download.await.unwrap());
        }
        let all: u64 = had.iter().sum();
        assert!((10 << 20..11 << 20).contains(&all), "{had:?}");
        let (most, least) = (had.iter().max().unwrap(), had.iter().min().unwrap());
        // The first is ahead by what may pass at once.
        assert!(most - least <= 4 * (64 << 10), "{had:?}");
    }
}
