//! How much strangers and callers may take.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Handshakes at a time, of all addresses and of one. A flood from one machine leaves room for the others.
const HANDSHAKES: usize = 1024;
const HANDSHAKES_OF_ONE: usize = 128;

/// Counts what is open.
pub(crate) struct Limits {
    connections: usize,
    open: AtomicUsize,
    handshakes: Mutex<HashMap<IpAddr, usize>>,
}

impl Limits {
    /// For this many connections of callers.
    pub(crate) fn new(connections: usize) -> Arc<Self> {
        Arc::new(Self {
            connections,
            open: AtomicUsize::new(0),
            handshakes: Mutex::default(),
        })
    }

    /// A place for a handshake; none if all are taken.
    pub(crate) fn handshake(self: &Arc<Self>, from: IpAddr) -> Option<Handshake> {
        let from = network(from);
        let mut all = self.lock();
        // Addresses are few: each has at least one handshake.
        let total: usize = all.values().sum();
        let own = all.get(&from).copied().unwrap_or(0);
        if total >= HANDSHAKES || own >= HANDSHAKES_OF_ONE {
            return None;
        }
        all.insert(from, own + 1);
        drop(all);
        Some(Handshake {
            limits: Arc::clone(self),
            from,
        })
    }

    /// A place for a caller's connection; none if all are taken.
    pub(crate) fn connection(self: &Arc<Self>) -> Option<Connection> {
        let before = self.open.fetch_add(1, Ordering::SeqCst);
        let place = Connection(Arc::clone(self));
        (before < self.connections).then_some(place)
    }

    /// Whether anything is under way: handshakes or connections.
    pub(crate) fn is_busy(&self) -> bool {
        // In the order in which one becomes the other.
        !self.lock().is_empty() || self.open() > 0
    }

    /// Callers' connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.handshakes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever has one address of IPv6 has the whole network of it.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 => v4,
    }
}

/// A handshake under way.
pub(crate) struct Handshake {
    limits: Arc<Limits>,
    from: IpAddr,
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut all = self.limits.lock();
        match all.get_mut(&self.from) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(all.remove(&self.from)),
        }
    }
}

/// A caller's connection that is open.
pub(crate) struct Connection(Arc<Limits>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_all_handshakes() {
        let limits = Limits::new(1);
        let flood: IpAddr = "10.0.0.9".parse().unwrap();
        let held: Vec<_> = (0..HANDSHAKES_OF_ONE)
            .map(|_| limits.handshake(flood).unwrap())
            .collect();
        assert!(limits.handshake(flood).is_none());
        assert!(
            limits
                .handshake("::ffff:10.0.0.9".parse().unwrap())
                .is_none()
        );
        assert!(limits.handshake("10.0.0.10".parse().unwrap()).is_some());
        drop(held);
        assert!(limits.handshake(flood).is_some());
        assert!(limits.lock().is_empty());
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one() {
        let limits = Limits::new(1);
        let held: Vec<_> = (0..HANDSHAKES_OF_ONE)
            .map(|i| format!("2001:db8::{i:x}").parse().unwrap())
            .map(|from| limits.handshake(from).unwrap())
            .collect();
        assert!(
            limits
                .handshake("2001:db8::ffff".parse().unwrap())
                .is_none()
        );
        assert!(
            limits
                .handshake("2001:db8:0:1::1".parse().unwrap())
                .is_some()
        );
        drop(held);
    }

    #[test]
    fn callers_have_places_of_their_own() {
        let limits = Limits::new(1);
        let first = limits.connection().unwrap();
        assert!(limits.connection().is_none());
        assert_eq!(limits.open(), 1);
        assert!(limits.is_busy());
        drop(first);
        assert!(!limits.is_busy());
        let handshake = limits.handshake("10.0.0.9".parse().unwrap()).unwrap();
        assert!(limits.is_busy(), "it is about to be a connection");
        drop(handshake);
        assert!(limits.connection().is_some());
    }
}
