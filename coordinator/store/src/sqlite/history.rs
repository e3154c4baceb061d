//! The latest changes in memory, and the tasks that hand them to watchers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};

use crate::{Change, StoreError};

/// Most changes kept.
const KEPT: usize = 8192;

/// Most bytes of keys and values kept.
const KEPT_BYTES: usize = 16 << 20;

/// Changes that a watcher may be behind before its channel fills.
const CHANNEL: usize = 256;

/// Changes that are copied at a time.
const PAGE: usize = 64;

#[derive(Debug)]
struct Ring {
    changes: VecDeque<Change>,
    bytes: usize,
    /// The earliest revision of which nothing is missing.
    oldest: u64,
}

/// The latest changes.
#[derive(Debug)]
pub(super) struct History(Mutex<Ring>);

fn weight(change: &Change) -> usize {
    change.key.len() + change.value.as_ref().map_or(0, Vec::len)
}

impl History {
    /// A history that begins behind `revision`.
    pub(super) fn new(revision: u64) -> Self {
        Self(Mutex::new(Ring {
            changes: VecDeque::new(),
            bytes: 0,
            oldest: revision + 1,
        }))
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Nothing can panic halfway through a change of the ring.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds committed changes, in the order of their revisions.
    pub(super) fn publish(&self, changes: Vec<Change>) {
        let mut ring = self.ring();
        ring.bytes += changes.iter().map(weight).sum::<usize>();
        ring.changes.extend(changes);
        while ring.changes.len() > KEPT || ring.bytes > KEPT_BYTES {
            let Some(revision) = ring.changes.front().map(|change| change.revision) else {
                break;
            };
            // Whole revisions only.
            while let Some(change) = ring.changes.front()
                && change.revision == revision
            {
                ring.bytes -= weight(change);
                ring.changes.pop_front();
            }
            ring.oldest = revision + 1;
        }
    }

    /// The changes of the next revisions from `from` on, whole revisions, about [`PAGE`] at a time; and the
    /// revision to go on with. None if some are not kept any more.
    fn page(&self, prefix: &str, from: u64) -> Option<(Vec<Change>, u64)> {
        let ring = self.ring();
        if from < ring.oldest {
            return None;
        }
        let start = ring
            .changes
            .partition_point(|change| change.revision < from);
        let (mut page, mut next) = (Vec::new(), from);
        for change in ring.changes.range(start..) {
            if page.len() >= PAGE && change.revision >= next {
                break;
            }
            next = change.revision + 1;
            if change.key.starts_with(prefix) {
                page.push(change.clone());
            }
        }
        Some((page, next))
    }

    /// Starts a task that hands over changes from `from` on, until the receiver or the store is gone.
    pub(super) fn watch(
        self: &Arc<Self>,
        mut ticks: watch::Receiver<u64>,
        prefix: &str,
        from: u64,
    ) -> Result<mpsc::Receiver<Change>, StoreError> {
        let oldest = self.ring().oldest;
        if from < oldest {
            return Err(StoreError::Compacted { oldest });
        }
        let (sender, receiver) = mpsc::channel(CHANNEL);
        let (history, prefix, mut from) = (Arc::clone(self), prefix.to_owned(), from);
        tokio::spawn(async move {
            loop {
                // Marked before looking, so that what comes after the look wakes it.
                ticks.borrow_and_update();
                let Some((page, next)) = history.page(&prefix, from) else {
                    return;
                };
                let idle = next == from;
                from = next;
                for change in page {
                    if sender.send(change).await.is_err() {
                        return;
                    }
                }
                if idle {
                    let gone = tokio::select! {
                        changed = ticks.changed() => changed.is_err(),
                        () = sender.closed() => true,
                    };
                    if gone {
                        return;
                    }
                }
            }
        });
        Ok(receiver)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(revision: u64, key: &str) -> Change {
        Change {
            revision,
            key: key.to_owned(),
            value: Some(vec![0; 100]),
        }
    }

    #[test]
    fn pages_hold_whole_revisions() {
        let history = History::new(0);
        for revision in 1..=3 {
            let keys = (0..50).map(|i| change(revision, &format!("/k{i}")));
            history.publish(keys.collect());
        }
        let (page, next) = history.page("/", 1).unwrap();
        assert_eq!((page.len(), next), (100, 3));
        let (page, next) = history.page("/", 3).unwrap();
        assert_eq!((page.len(), next), (50, 4));
        assert_eq!(history.page("/none", 1).unwrap(), (vec![], 4));
        assert_eq!(history.page("/", 9).unwrap(), (vec![], 9));
    }

    #[test]
    fn old_changes_are_let_go_by_revision() {
        let history = History::new(5);
        assert!(history.page("/", 5).is_none());
        for revision in 6..(KEPT as u64) {
            history.publish(vec![change(revision, "/a"), change(revision, "/b")]);
        }
        let oldest = history.ring().oldest;
        assert!(oldest > 6);
        assert!(history.page("/", oldest - 1).is_none());
        let (page, _) = history.page("/", oldest).unwrap();
        assert_eq!(page[0].revision, oldest);
        assert_eq!(page[1].revision, oldest);
    }
}
