//! Waiting for a relay that is being started again, where no other instance is left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng;

use crate::exchange::Exchange;
use crate::queue::{Away, Queue};

/// How long one request waits for relays in all, and how long an instance may have failed for that. A relay that is told
/// to end finishes what it has for five seconds, and then it is started.
pub(crate) const AWAY: Duration = Duration::from_secs(10);
/// From one look to the next.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_millis(400);

/// What a request has left of its patience with relays.
#[derive(Default)]
pub(crate) struct Patience {
    until: Option<Instant>,
    /// From the first wait to the answer, so that one that waits is not crowded out between two looks.
    place: Option<Away>,
    pauses: u32,
}

impl Patience {
    /// Waits for a moment; false if there is no time for that, or if too many of the service wait already.
    pub(crate) async fn wait(&mut self, exchange: &Exchange<'_>, queue: &Arc<Queue>) -> bool {
        let now = Instant::now();
        let until = *self.until.get_or_insert(now + AWAY);
        let spread: f64 = exchange.worker.rng.borrow_mut().random();
        let full = FIRST_PAUSE.saturating_mul(1 << self.pauses.min(8));
        let pause = full.min(LAST_PAUSE).mul_f64(0.5 + 0.5 * spread);
        if now + pause >= until.min(exchange.head_deadline().into_std()) {
            return false;
        }
        if self.place.is_none() {
            self.place = queue.wait_for_relay(exchange.rules.queue);
        }
        if self.place.is_none() {
            return false;
        }
        self.pauses += 1;
        tokio::time::sleep(pause).await;
        true
    }
}
