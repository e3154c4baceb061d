//! A map that knows which of its entries have changed since they were last written.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

/// Who is told of changes beside the store. Each asks when it likes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reader {
    /// What the planner knows.
    Planner = 0,
    /// What gateways and agents are told.
    Publisher = 1,
}

/// What is kept beside a map to find its entries by something else than their keys: always as if it had been made of
/// the whole map.
pub(crate) trait Index<K, V>: Default {
    /// Takes one change.
    fn change(&mut self, key: &K, before: Option<&V>, after: Option<&V>);
}

impl<K, V> Index<K, V> for () {
    fn change(&mut self, _: &K, _: Option<&V>, _: Option<&V>) {}
}

/// Reads are the map's own (`Deref`); changes go through [`Tracked::put`] and [`Tracked::remove`].
#[derive(Debug)]
pub(crate) struct Tracked<K, V, I = ()> {
    map: BTreeMap<K, V>,
    index: I,
    dirty: BTreeSet<K>,
    /// The same for each reader that is to know.
    news: [Option<BTreeSet<K>>; 2],
}

impl<K: Ord + Clone, V: PartialEq, I: Index<K, V>> Tracked<K, V, I> {
    /// As loaded: nothing has changed.
    pub(crate) fn clean(map: BTreeMap<K, V>) -> Self {
        let mut index = I::default();
        for (key, value) in &map {
            index.change(key, None, Some(value));
        }
        Self {
            map,
            index,
            dirty: BTreeSet::new(),
            news: [None, None],
        }
    }

    /// Notes for these readers, too, what changes; to begin with everything is news. Each must ask again and again: what
    /// nobody takes is kept.
    pub(crate) fn watched(mut self, readers: &[Reader]) -> Self {
        for reader in readers {
            self.news[*reader as usize] = Some(self.map.keys().cloned().collect());
        }
        self
    }

    /// The keys that have changed since the reader asked last.
    pub(crate) fn take_news(&mut self, reader: Reader) -> BTreeSet<K> {
        let news = self.news[reader as usize].as_mut();
        news.map(std::mem::take).unwrap_or_default()
    }

    /// Whether something is noted that the reader has not taken.
    #[cfg(test)]
    pub(crate) fn has_news(&self, reader: Reader) -> bool {
        let news = self.news[reader as usize].as_ref();
        news.is_some_and(|news| !news.is_empty())
    }

    /// What is kept beside the map.
    pub(crate) fn index(&self) -> &I {
        &self.index
    }

    /// The same, for what it notes beside.
    pub(crate) fn index_mut(&mut self) -> &mut I {
        &mut self.index
    }

    /// Sets an entry; an equal value changes nothing and so costs no write.
    pub(crate) fn put(&mut self, key: K, value: V) {
        if self.map.get(&key) != Some(&value) {
            self.note(&key);
            self.index.change(&key, self.map.get(&key), Some(&value));
            self.map.insert(key, value);
        }
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let old = self.map.remove(key)?;
        self.note(key);
        self.index.change(key, Some(&old), None);
        Some(old)
    }

    fn note(&mut self, key: &K) {
        self.dirty.insert(key.clone());
        for news in self.news.iter_mut().flatten() {
            news.insert(key.clone());
        }
    }

    /// The keys that have changed since the last call.
    pub(crate) fn take_dirty(&mut self) -> BTreeSet<K> {
        std::mem::take(&mut self.dirty)
    }
}

impl<K, V, I> Deref for Tracked<K, V, I> {
    type Target = BTreeMap<K, V>;
    fn deref(&self) -> &BTreeMap<K, V> {
        &self.map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Map = Tracked<i32, &'static str>;

    #[test]
    fn only_real_changes_are_dirty() {
        let mut map = Map::clean(BTreeMap::from([(1, "a"), (2, "b")]));
        map.put(1, "a");
        assert!(map.remove(&9).is_none());
        assert!(map.take_dirty().is_empty());
        map.put(1, "c");
        map.remove(&2);
        assert_eq!(map.take_dirty(), BTreeSet::from([1, 2]));
        assert!(map.take_dirty().is_empty());
        assert_eq!(map.len(), 1);
        assert!(map.take_news(Reader::Planner).is_empty(), "nobody asked");
    }

    #[test]
    fn each_reader_is_told_of_everything_once() {
        let map = Map::clean(BTreeMap::from([(1, "a"), (2, "b")]));
        let mut map = map.watched(&[Reader::Planner, Reader::Publisher]);
        assert_eq!(map.take_news(Reader::Planner), BTreeSet::from([1, 2]));
        map.put(1, "a");
        map.put(2, "c");
        assert_eq!(map.take_dirty(), map.take_news(Reader::Planner));
        map.remove(&2);
        assert_eq!(map.take_news(Reader::Planner), BTreeSet::from([2]));
        assert!(map.take_news(Reader::Planner).is_empty());
        assert_eq!(map.take_news(Reader::Publisher), BTreeSet::from([1, 2]));
        assert!(map.take_news(Reader::Publisher).is_empty());
    }

    #[test]
    fn nothing_is_kept_for_who_does_not_read() {
        let mut map = Map::clean(BTreeMap::from([(1, "a")])).watched(&[Reader::Planner]);
        map.put(2, "b");
        assert!(map.has_news(Reader::Planner));
        assert!(!map.has_news(Reader::Publisher));
    }
}
