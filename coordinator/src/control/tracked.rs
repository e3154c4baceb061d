//! A map that knows which of its entries have changed since they were last written.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

/// Reads are the map's own (`Deref`); changes go through [`Tracked::put`] and [`Tracked::remove`].
#[derive(Debug)]
pub(crate) struct Tracked<K, V> {
    map: BTreeMap<K, V>,
    dirty: BTreeSet<K>,
    /// The same for the planner, where it is to know.
    news: Option<BTreeSet<K>>,
}

impl<K: Ord + Clone, V: PartialEq> Tracked<K, V> {
    /// As loaded: nothing has changed.
    pub(crate) fn clean(map: BTreeMap<K, V>) -> Self {
        Self {
            map,
            dirty: BTreeSet::new(),
            news: None,
        }
    }

    /// Notes for the planner, too, what changes; to begin with everything is news.
    pub(crate) fn watched(mut self) -> Self {
        self.news = Some(self.map.keys().cloned().collect());
        self
    }

    /// The keys that have changed since the planner was told last.
    pub(crate) fn take_news(&mut self) -> BTreeSet<K> {
        self.news
            .as_mut()
            .map_or_else(BTreeSet::new, std::mem::take)
    }

    /// Sets an entry; an equal value changes nothing and so costs no write.
    pub(crate) fn put(&mut self, key: K, value: V) {
        if self.map.get(&key) != Some(&value) {
            self.note(&key);
            self.map.insert(key, value);
        }
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let old = self.map.remove(key)?;
        self.note(key);
        Some(old)
    }

    fn note(&mut self, key: &K) {
        self.dirty.insert(key.clone());
        if let Some(news) = &mut self.news {
            news.insert(key.clone());
        }
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
        assert!(map.take_news().is_empty(), "nobody asked");
    }

    #[test]
    fn the_planner_is_told_of_everything_once() {
        let mut map = Tracked::clean(BTreeMap::from([(1, "a"), (2, "b")])).watched();
        assert_eq!(map.take_news(), BTreeSet::from([1, 2]));
        map.put(1, "a");
        map.put(2, "c");
        assert_eq!(map.take_dirty(), map.take_news());
        map.remove(&2);
        assert_eq!(map.take_news(), BTreeSet::from([2]));
        assert!(map.take_news().is_empty());
    }
}
