//! A map that knows which of its entries have changed since they were last written.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

/// Reads are the map's own (`Deref`); changes go through [`Tracked::put`] and [`Tracked::remove`].
#[derive(Debug)]
pub(crate) struct Tracked<K, V> {
    map: BTreeMap<K, V>,
    dirty: BTreeSet<K>,
}

impl<K: Ord + Clone, V: PartialEq> Tracked<K, V> {
    /// As loaded: nothing has changed.
    pub(crate) fn clean(map: BTreeMap<K, V>) -> Self {
        Self {
            map,
            dirty: BTreeSet::new(),
        }
    }

    /// Sets an entry; an equal value changes nothing and so costs no write.
    pub(crate) fn put(&mut self, key: K, value: V) {
        if self.map.get(&key) != Some(&value) {
            self.dirty.insert(key.clone());
            self.map.insert(key, value);
        }
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let old = self.map.remove(key)?;
        self.dirty.insert(key.clone());
        Some(old)
    }

    /// The keys that have changed since the last call.
    pub(crate) fn take_dirty(&mut self) -> BTreeSet<K> {
        std::mem::take(&mut self.dirty)
    }
}

impl<K, V> Deref for Tracked<K, V> {
    type Target = BTreeMap<K, V>;
    fn deref(&self) -> &BTreeMap<K, V> {
        &self.map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_real_changes_are_dirty() {
        let mut map = Tracked::clean(BTreeMap::from([(1, "a"), (2, "b")]));
        map.put(1, "a");
        assert!(map.remove(&9).is_none());
        assert!(map.take_dirty().is_empty());
        map.put(1, "c");
        map.remove(&2);
        assert_eq!(map.take_dirty(), BTreeSet::from([1, 2]));
        assert!(map.take_dirty().is_empty());
        assert_eq!(map.len(), 1);
    }
}
