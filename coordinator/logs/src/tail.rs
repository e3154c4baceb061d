//! Where the last so many lines begin, found from the end.

use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::path::Path;

use berth_logfile::{Segment, segments};

use crate::index::{Index, Known};
use crate::line::Filter;
use crate::names::Names;
use crate::place::{self, latest, scan};
use crate::{LogsError, StreamKey};

/// One stream, read backwards by segments. Only the places of lines are held, not the lines.
struct Backward<'a> {
    key: &'a StreamKey,
    names: Names,
    /// Not looked into yet.
    segments: Vec<Segment>,
    /// Offset and time of lines that are wanted, in the segment looked into last.
    lines: VecDeque<(u64, u64)>,
    /// No line before this offset is wanted.
    floor: u64,
    /// Where the earliest line that was chosen begins.
    begin: Option<u64>,
}

impl Backward<'_> {
    /// Looks into earlier segments until there are lines: whether there are.
    fn load(&mut self, filter: &Filter, count: usize) -> Result<bool, LogsError> {
        while self.lines.is_empty() {
            let Some(segment) = self.segments.pop() else {
                return Ok(false);
            };
            if segment.end() <= self.floor || latest(&segment) < filter.since {
                self.segments.clear();
                return Ok(false);
            }
            scan(&segment, |offset, frame| {
                if offset >= self.floor && filter.line(self.key, &self.names, frame).is_some() {
                    self.lines.push_back((offset, frame.time));
                    if self.lines.len() > count {
                        self.lines.pop_front();
                    }
                }
            })?;
        }
        Ok(true)
    }
}

/// Where to begin in each stream, so that `count` lines that are wanted follow in all.
pub(crate) fn begins(
    root: &Path,
    index: &Index,
    known: &[Known],
    filter: &Filter,
    places: &BTreeMap<StreamKey, u64>,
    count: usize,
) -> Result<Vec<u64>, LogsError> {
    let mut streams = Vec::with_capacity(known.len());
    // By the time after which a stream has no lines that were not chosen yet: the latest first.
    let mut heap = BinaryHeap::new();
    let mut ends = Vec::with_capacity(known.len());
    for (at, stream) in known.iter().enumerate() {
        let dir = stream.0.dir(root);
        // Found first: what comes later follows the lines that are chosen now.
        let end = place::end(root, index, stream)?;
        ends.push(end);
        let mut segments = segments(&dir)?;
        segments.retain(|segment| segment.base < end);
        if let Some(last) = segments.last() {
            heap.push((latest(last), at));
        }
        streams.push(Backward {
            key: &stream.0,
            names: Names::default(),
            segments,
            lines: VecDeque::new(),
            floor: places.get(&stream.0).copied().unwrap_or(0),
            begin: None,
        });
    }
    let mut chosen = 0;
    while chosen < count
        && let Some((time, at)) = heap.pop()
    {
        let stream = &mut streams[at];
        if !stream.load(filter, count - chosen)? {
            continue;
        }
        let Some(&(offset, last)) = stream.lines.back() else {
            continue;
        };
        if last < time {
            heap.push((last, at));
            continue;
        }
        stream.lines.pop_back();
        stream.begin = Some(offset);
        chosen += 1;
        heap.push((time, at));
    }
    let begins = streams.iter().zip(ends);
    Ok(begins
        .map(|(stream, end)| stream.begin.unwrap_or(end).max(stream.floor))
        .collect())
}
