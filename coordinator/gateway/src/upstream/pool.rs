//! Unused connections of one thread, by instance; the last one used is the first to be used again.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Connection;
use crate::hash::Quick;
use crate::routing::{Endpoint, Instance, Target};

struct Idle {
    connection: Connection,
    since: Instant,
}

struct Shelf {
    instance: Arc<Instance>,
    /// A restarted instance may have another address.
    endpoint: Endpoint,
    idle: VecDeque<Idle>,
}

pub(crate) struct Pool {
    /// By the instance's key.
    shelves: RefCell<HashMap<u64, Shelf, Quick>>,
    max_idle: usize,
    idle_timeout: Duration,
}

impl Pool {
    pub(crate) fn new(max_idle: usize, idle_timeout: Duration) -> Self {
        Self {
            shelves: RefCell::default(),
            max_idle,
            idle_timeout,
        }
    }

    /// A connection to the instance. With `careful`, one that the system just said is open.
    pub(crate) fn take(&self, target: &Target, now: Instant, careful: bool) -> Option<Connection> {
        let mut shelves = self.shelves.borrow_mut();
        let shelf = shelves.get_mut(&target.instance.key)?;
        if shelf.endpoint != target.endpoint {
            return None;
        }
        while let Some(Idle { connection, since }) = shelf.idle.pop_back() {
            if now.saturating_duration_since(since) >= self.idle_timeout {
                // The others are older still.
                shelf.idle.clear();
                return None;
            }
            if !careful || connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose response is over, if it can serve again.
    pub(crate) fn put(&self, target: &Target, mut connection: Connection) {
        let instance = &target.instance;
        if self.max_idle == 0 || instance.is_retired() || !connection.settle() {
            return;
        }
        let mut shelves = self.shelves.borrow_mut();
        let shelf = shelves.entry(instance.key).or_insert_with(|| Shelf {
            instance: Arc::clone(instance),
            endpoint: target.endpoint.clone(),
            idle: VecDeque::new(),
        });
        if shelf.endpoint != target.endpoint {
            shelf.idle.clear();
            shelf.endpoint = target.endpoint.clone();
        }
        if shelf.idle.len() >= self.max_idle {
            shelf.idle.pop_front();
        }
        shelf.idle.push_back(Idle {
            connection,
            since: Instant::now(),
        });
    }

    /// Closes all connections to an instance: one was found dead, so the others are in doubt.
    pub(crate) fn clear(&self, target: &Target) {
        self.shelves.borrow_mut().remove(&target.instance.key);
    }

    /// Closes what is too old or leads to an instance that left the table.
    pub(crate) fn sweep(&self, now: Instant) {
        self.shelves.borrow_mut().retain(|_, shelf| {
            if shelf.instance.is_retired() {
                return false;
            }
            let old = |idle: &Idle| now.saturating_duration_since(idle.since) >= self.idle_timeout;
            while shelf.idle.front().is_some_and(old) {
                shelf.idle.pop_front();
            }
            !shelf.idle.is_empty()
        });
    }
}
