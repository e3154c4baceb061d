//! Many streams as one, in the order of time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::index::{Index, Known};
use crate::line::Filter;
use crate::source::{Item, Source};
use crate::{LogsError, Query, StreamKey, place, tail};

/// Reads the streams of a query. A stream's own order is kept, whatever its times.
///
/// A stream is opened only when its turn comes and closed when it is read up, so that a service with
/// thousands of old starts needs no more files or memory than one with a few.
#[derive(Debug)]
pub(crate) struct Merge {
    root: PathBuf,
    filter: Filter,
    follow: bool,
    sources: Vec<Source>,
    by_key: BTreeMap<StreamKey, usize>,
    /// Streams that may have lines, by the time before which they have none.
    heap: BinaryHeap<Reverse<(u64, usize)>>,
    /// Which streams are in the heap, or are not to be read again.
    queued: Vec<bool>,
}

impl Merge {
    /// Finds out where to begin in each stream. `places` are those of a cursor.
    pub(crate) fn open(
        root: &Path,
        index: &Arc<Index>,
        query: &Query,
        places: &BTreeMap<StreamKey, u64>,
        follow: bool,
    ) -> Result<Self, LogsError> {
        let mut merge = Self {
            root: root.to_owned(),
            filter: Filter::of(query),
            follow,
            sources: Vec::new(),
            by_key: BTreeMap::new(),
            heap: BinaryHeap::new(),
            queued: Vec::new(),
        };
        let known = index.streams(&query.scope);
        let begins = match query.tail {
            Some(count) => tail::begins(root, index, &known, &merge.filter, places, count)?,
            None => begins(root, index, &known, merge.filter.since, places)?,
        };
        for ((key, durable), begin) in known.into_iter().zip(begins) {
            // What comes while it is read does not belong to what there was.
            let end = durable.filter(|_| !follow).unwrap_or(u64::MAX);
            merge.add(key, begin, end)?;
        }
        Ok(merge)
    }

    fn add(&mut self, key: StreamKey, begin: u64, end: u64) -> Result<(), LogsError> {
        let at = self.sources.len();
        let dir = key.dir(&self.root);
        // Without opening the whole: the time at which the segment begins, where the reading does.
        let segments = berth_logfile::segments(&dir)?;
        let behind = segments.last().is_none_or(|last| last.end() <= begin);
        let time = match segments.iter().find(|segment| segment.base >= begin) {
            Some(first) if begin == first.base => place::first_time(first)?,
            _ => None,
        };
        if !behind {
            self.heap.push(Reverse((time.unwrap_or(0), at)));
        }
        self.queued.push(!behind);
        self.by_key.insert(key.clone(), at);
        self.sources.push(Source::new(&self.root, key, begin, end));
        Ok(())
    }

    /// The place in each stream: to be asked before the first line is pulled.
    pub(crate) fn places(&self) -> BTreeMap<StreamKey, u64> {
        let places = self.sources.iter();
        places
            .map(|source| (source.key().clone(), source.next()))
            .collect()
    }

    /// Takes note of streams that have come, or have become longer.
    pub(crate) fn refresh(&mut self, known: Vec<Known>) -> Result<(), LogsError> {
        for (key, durable) in known {
            let Some(&at) = self.by_key.get(&key) else {
                if self.follow {
                    self.add(key, 0, u64::MAX)?;
                }
                continue;
            };
            let (source, durable) = (&mut self.sources[at], durable.unwrap_or(0));
            source.know(durable);
            if !self.queued[at] && durable > source.next() {
                self.heap.push(Reverse((source.last_time(), at)));
                self.queued[at] = true;
            }
        }
        Ok(())
    }

    /// The next line; none if there is none now. An error is about one stream, which is then left out.
    pub(crate) fn pull(&mut self, cancelled: &dyn Fn() -> bool) -> Option<Result<Item, LogsError>> {
        while let Some(Reverse((time, at))) = self.heap.pop() {
            let source = &mut self.sources[at];
            match source.peek(&self.filter, cancelled) {
                Err(error) => {
                    source.unload();
                    return Some(Err(error));
                }
                Ok(None) => {
                    source.unload();
                    self.queued[at] = false;
                }
                Ok(Some(found)) if found > time => self.heap.push(Reverse((found, at))),
                Ok(Some(_)) => {
                    self.heap.push(Reverse((time, at)));
                    if let Some(item) = source.take() {
                        return Some(Ok(item));
                    }
                }
            }
        }
        None
    }
}

/// Where to begin in each stream, without a limit to the last lines.
fn begins(
    root: &Path,
    index: &Index,
    known: &[Known],
    since: u64,
    places: &BTreeMap<StreamKey, u64>,
) -> Result<Vec<u64>, LogsError> {
    let begin = |stream: &Known| match places.get(&stream.0) {
        Some(place) => Ok(*place),
        None if since == 0 => Ok(0),
        None => match place::begin_since(&stream.0.dir(root), since)? {
            Some(begin) => Ok(begin),
            None => place::end(root, index, stream),
        },
    };
    known.iter().map(begin).collect()
}
