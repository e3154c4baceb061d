//! Requests of one service that wait for a place, first come, first served, over all threads.
//!
//! Only services with `limits.concurrency` use the line, and its lock is taken only while all places are
//! taken. The first in line looks for a place whenever one may have become free; when it leaves the
//! line, for whatever reason, the next one looks. Requests that wait for a relay are only counted.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

#[derive(Default)]
pub(crate) struct Queue {
    /// Length of `line`, readable without its lock.
    length: AtomicUsize,
    line: Mutex<VecDeque<Arc<Notify>>>,
    /// Requests that wait for a relay that is away: no place that becomes free helps them.
    away: AtomicUsize,
}

impl Queue {
    fn line(&self) -> MutexGuard<'_, VecDeque<Arc<Notify>>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests that wait.
    pub(crate) fn len(&self) -> usize {
        self.length.load(Ordering::SeqCst)
    }

    /// A place may have become free. The count that made it free must be lowered before the call:
    /// either this sees the waiting request, or that request sees the free place, as both sides
    /// write before they read, in one total order (`SeqCst`).
    pub(crate) fn place_free(&self) {
        if self.len() > 0
            && let Some(first) = self.line().front()
        {
            first.notify_one();
        }
    }

    /// Joins the line; none if `limit` requests wait already.
    pub(crate) fn join(self: &Arc<Self>, limit: usize) -> Option<Ticket> {
        let mut line = self.line();
        if line.len() >= limit {
            return None;
        }
        let turn = Arc::new(Notify::new());
        // The first one looks at once: a place may have become free before it was in line.
        if line.is_empty() {
            turn.notify_one();
        }
        line.push_back(Arc::clone(&turn));
        self.length.store(line.len(), Ordering::SeqCst);
        Some(Ticket {
            queue: Arc::clone(self),
            turn,
        })
    }

    /// Counts a request that waits for a relay; none if `limit` do already.
    pub(crate) fn wait_for_relay(self: &Arc<Self>, limit: usize) -> Option<Away> {
        let more = |waiting: usize| (waiting < limit).then_some(waiting + 1);
        let before = self
            .away
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        before.ok().map(|_| Away(Arc::clone(self)))
    }

    /// Requests that wait for a relay.
    pub(crate) fn away(&self) -> usize {
        self.away.load(Ordering::Relaxed)
    }
}

/// A place among those that wait for a relay, left by dropping it.
pub(crate) struct Away(Arc<Queue>);

impl Drop for Away {
    fn drop(&mut self) {
        self.0.away.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place in the line, left by dropping it.
pub(crate) struct Ticket {
    queue: Arc<Queue>,
    turn: Arc<Notify>,
}

impl Ticket {
    /// Waits until this is first in line and a place may be free.
    pub(crate) async fn turn(&self) {
        self.turn.notified().await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut line = self.queue.line();
        line.retain(|turn| !Arc::ptr_eq(turn, &self.turn));
        self.queue.length.store(line.len(), Ordering::SeqCst);
        if let Some(first) = line.front() {
            first.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn has_turn(ticket: &Ticket) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        pin!(ticket.turn()).poll(&mut cx).is_ready()
    }

    #[test]
    fn first_come_first_served() {
        let queue = Arc::new(Queue::default());
        let first = queue.join(2).unwrap();
        let second = queue.join(2).unwrap();
        assert!(queue.join(2).is_none());
        assert!(has_turn(&first), "looks once on joining");
        assert!(!has_turn(&first) && !has_turn(&second));
        queue.place_free();
        assert!(!has_turn(&second));
        assert!(has_turn(&first));
        drop(first);
        assert!(
            has_turn(&second),
            "the next one looks when the first leaves"
        );
        drop(second);
        assert_eq!(queue.len(), 0);
        queue.place_free();
    }

    #[test]
    fn one_that_gives_up_passes_its_turn_on() {
        let queue = Arc::new(Queue::default());
        let first = queue.join(9).unwrap();
        let second = queue.join(9).unwrap();
        let third = queue.join(9).unwrap();
        drop(second);
        assert!(!has_turn(&third));
        queue.place_free();
        drop(first);
        assert!(has_turn(&third));
    }
}
