//! What is kept, and how the rest goes: whole old segments, and never a stream's length.
//!
//! A stream of which all is deleted keeps an empty segment, named by the offset at which it goes on: a
//! node that ships again what was acknowledged long ago must be told so, and not be stored again.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use berth_logfile::segments;
use berth_model::id::ServiceName;

use crate::{LogsError, StreamKey, disk};

/// How long the length of an instance's latest stream is remembered after all of it was deleted.
const MEMORY: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long and how much is kept. Whole old segments go, never a line out of the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Segments that were last written to longer ago go.
    pub max_age: Duration,
    /// Most bytes of all services: the oldest segments go first.
    pub max_bytes: u64,
    /// Most bytes of one service.
    pub per_service_bytes: u64,
}

impl Default for Retention {
    /// Seven days, 10 GiB, 1 GiB.
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(7 * 24 * 3600),
            max_bytes: 10 << 30,
            per_service_bytes: 1 << 30,
        }
    }
}

/// What a sweep took away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Segments.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Swept {
    pub(crate) fn add(&mut self, other: Self) {
        self.segments += other.segments;
        self.bytes += other.bytes;
    }
}

/// One segment, as a sweep sees it.
#[derive(Debug, Clone)]
struct Seen {
    /// Place of its stream in the list.
    stream: usize,
    bytes: u64,
    /// When it, or one before it in the stream, was last written to.
    modified: SystemTime,
    path: PathBuf,
    /// The stream's length, if it is its last segment.
    end: Option<u64>,
}

/// What a sweep is going to do.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Closed segments: just files.
    pub(crate) files: Vec<(PathBuf, u64)>,
    /// Streams of which all goes, and their lengths: only the writer may.
    pub(crate) empty: Vec<(StreamKey, u64)>,
    /// Streams of which nothing is left for long, and their lengths.
    pub(crate) forget: Vec<(StreamKey, u64)>,
}

/// How far the wall clock may be ahead of where it should be before it counts as set: less makes no difference
/// to what is old.
const JUMP: Duration = Duration::from_secs(86_400);

/// A file in the store's folder; its time is that of the last look at the clock.
pub(crate) const LOOKED: &str = ".looked";

/// Sees when the wall clock is set ahead. The age of what is kept is told by files' times, so a clock that is set
/// ahead by a year would make everything too old at once. One that is set back only keeps things longer. More than a day
/// in which no process looked does not count either: whether it has passed, nobody knows.
#[derive(Debug)]
pub(crate) struct Watch {
    at: Instant,
    wall: SystemTime,
    /// When this process began, before its first look.
    began: Option<SystemTime>,
}

/// The wall clock was set ahead.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Jump {
    /// What it would show.
    pub(crate) should: SystemTime,
    /// What is from later was written after it was set.
    pub(crate) since: SystemTime,
}

impl Watch {
    /// From what both clocks show now, and what the wall clock showed when a process looked last.
    pub(crate) fn new(at: Instant, wall: SystemTime, looked: Option<SystemTime>) -> Self {
        Self {
            at,
            wall: looked.unwrap_or(wall),
            began: Some(wall),
        }
    }

    /// Whether the wall clock was set ahead since it was seen last.
    pub(crate) fn jump(&self, now: Instant, wall: SystemTime) -> Option<Jump> {
        let passed = now.saturating_duration_since(self.at);
        let should = self.wall.checked_add(passed)?;
        let since = self.began.unwrap_or(should);
        let ahead = wall.duration_since(should).ok()?;
        (ahead > JUMP).then_some(Jump { should, since })
    }

    /// What both clocks show is how it is now.
    pub(crate) fn seen(&mut self, now: Instant, wall: SystemTime) {
        *self = Self {
            at: now,
            wall,
            began: None,
        };
    }
}

/// When a process looked last at the clock, if one has.
pub(crate) fn looked(root: &Path) -> Result<Option<SystemTime>, LogsError> {
    let path = root.join(LOOKED);
    match fs::metadata(&path).and_then(|meta| meta.modified()) {
        Ok(at) => Ok(Some(at)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LogsError::io("look at", &path)(error)),
    }
}

/// Notes that a process has looked at the clock.
pub(crate) fn note(root: &Path, wall: SystemTime) -> Result<(), LogsError> {
    let path = root.join(LOOKED);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options
        .open(&path)
        .and_then(|file| file.set_modified(wall))
        .map_err(LogsError::io("set the time of", &path))
}

/// After the clock was set ahead to `wall`: has every segment of before keep its age. Done again, it makes those that it
/// moved younger than they are, never older. Errors: the first one; all segments were tried.
pub(crate) fn shift(
    root: &Path,
    streams: &[StreamKey],
    jump: &Jump,
    wall: SystemTime,
) -> Result<(), LogsError> {
    let mut failed = None;
    for (at, key) in streams.iter().enumerate() {
        let moved = look(root, at, key).map(|found| {
            let results = found.iter().map(|segment| age(segment, jump, wall));
            results.filter_map(Result::err).next_back()
        });
        match moved {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Gives one segment the time by which it is as old as it was.
fn age(segment: &Seen, jump: &Jump, wall: SystemTime) -> Result<(), LogsError> {
    if segment.modified > jump.since {
        return Ok(());
    }
    // Written after a process looked last, and before it ended: as good as new.
    let age = jump.should.duration_since(segment.modified);
    let time = wall.checked_sub(age.unwrap_or_default());
    let time = time.unwrap_or(SystemTime::UNIX_EPOCH);
    let set = fs::File::open(&segment.path).and_then(|file| file.set_modified(time));
    match set {
        // Deleted meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        set => set.map_err(LogsError::io("set the time of", &segment.path)),
    }
}

/// Finds out what is beyond the retention.
pub(crate) fn plan(
    root: &Path,
    mut streams: Vec<StreamKey>,
    retention: &Retention,
    now: SystemTime,
) -> Result<Plan, LogsError> {
    streams.sort_unstable();
    let mut plan = Plan::default();
    let mut seen = Vec::new();
    for (at, key) in streams.iter().enumerate() {
        let found = look(root, at, key)?;
        let idle = found
            .last()
            .and_then(|last| now.duration_since(last.modified).ok());
        let latest = streams
            .get(at + 1)
            .is_none_or(|next| next.instance != key.instance);
        let more = if latest { MEMORY } else { Duration::ZERO };
        let memory = retention.max_age.saturating_add(more);
        if let [
            Seen {
                bytes: 0,
                end: Some(end),
                ..
            },
        ] = found[..]
            && idle.is_some_and(|idle| idle > memory)
        {
            plan.forget.push((key.clone(), end));
        }
        seen.extend(found.into_iter().filter(|segment| segment.bytes > 0));
    }
    seen.sort_by_key(|segment| segment.modified);
    for segment in choose(seen, &streams, retention, now) {
        match segment.end {
            Some(end) => plan.empty.push((streams[segment.stream].clone(), end)),
            None => plan.files.push((segment.path, segment.bytes)),
        }
    }
    Ok(plan)
}

/// The segments of a stream, by offset.
fn look(root: &Path, stream: usize, key: &StreamKey) -> Result<Vec<Seen>, LogsError> {
    let list = segments(&key.dir(root))?;
    let last = list.len().saturating_sub(1);
    let mut seen: Vec<Seen> = Vec::with_capacity(list.len());
    for (at, segment) in list.into_iter().enumerate() {
        let meta = match fs::metadata(&segment.path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(LogsError::io("look at", &segment.path)(error)),
        };
        let own = meta
            .modified()
            .map_err(LogsError::io("look at", &segment.path))?;
        // Never before an earlier one of the stream, so that no hole is made in it.
        let modified = seen.last().map_or(own, |before| own.max(before.modified));
        seen.push(Seen {
            stream,
            bytes: segment.len,
            modified,
            end: (at == last).then(|| segment.end()),
            path: segment.path,
        });
    }
    Ok(seen)
}

/// Which segments go; they come sorted by age, and those of a stream by offset.
fn choose(
    seen: Vec<Seen>,
    streams: &[StreamKey],
    retention: &Retention,
    now: SystemTime,
) -> Vec<Seen> {
    let service =
        |segment: &Seen| -> &ServiceName { &streams[segment.stream].instance.slot.service };
    let mut all: u64 = seen.iter().map(|segment| segment.bytes).sum();
    let mut by_service: HashMap<ServiceName, u64> = HashMap::new();
    for segment in &seen {
        *by_service.entry(service(segment).clone()).or_default() += segment.bytes;
    }
    // Oldest first: whatever the reason, what goes of a stream is its beginning. The services' limits
    // come first, so that the common one is not spent on what goes anyway.
    let mut kept = Vec::new();
    let mut gone = Vec::new();
    for segment in seen {
        let old = now
            .duration_since(segment.modified)
            .is_ok_and(|age| age > retention.max_age);
        let own = by_service.entry(service(&segment).clone()).or_default();
        if old || *own > retention.per_service_bytes {
            *own -= segment.bytes;
            all -= segment.bytes;
            gone.push(segment);
        } else {
            kept.push(segment);
        }
    }
    for segment in kept {
        if all <= retention.max_bytes {
            break;
        }
        all -= segment.bytes;
        gone.push(segment);
    }
    gone
}

/// Makes an empty segment at `end`, if there is none, so that the stream's length is remembered.
pub(crate) fn mark(dir: &Path, end: u64) -> Result<(), LogsError> {
    let path = dir.join(format!("{end:020}.log"));
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path);
    match made {
        Ok(_) => disk::sync_dir(dir),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(LogsError::io("make", &path)(error)),
    }
}

/// Deletes all of a stream that ends at `end`; one that has become longer is left alone.
pub(crate) fn empty(dir: &Path, end: u64) -> Result<Swept, LogsError> {
    let list = segments(dir)?;
    let mut swept = Swept::default();
    if list.last().is_none_or(|last| last.end() != end) {
        return Ok(swept);
    }
    mark(dir, end)?;
    for segment in list.iter().filter(|segment| segment.base < end) {
        swept.add(remove(&segment.path, segment.len)?);
    }
    Ok(swept)
}

/// Removes a segment's file: what that took away.
pub(crate) fn remove(path: &Path, bytes: u64) -> Result<Swept, LogsError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(Swept { segments: 1, bytes }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Swept::default()),
        Err(error) => Err(LogsError::io("remove", path)(error)),
    }
}

/// Removes the folder of a stream that is empty and ends at `end`: whether it was.
pub(crate) fn forget(dir: &Path, end: u64) -> Result<bool, LogsError> {
    let list = segments(dir)?;
    if list
        .iter()
        .any(|segment| segment.len > 0 || segment.end() != end)
    {
        return Ok(false);
    }
    fs::remove_dir_all(dir).map_err(LogsError::io("remove", dir))?;
    if let Some(instance) = dir.parent() {
        // Fails, rightly, while there are other streams.
        let _ = fs::remove_dir(instance);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

    fn look(watch: &mut Watch, now: Instant, wall: SystemTime) -> Option<Jump> {
        let jump = watch.jump(now, wall);
        assert_eq!(watch.jump(now, wall), jump, "until it is seen to");
        watch.seen(now, wall);
        jump
    }

    #[test]
    fn only_a_clock_that_is_set_far_ahead_is_seen() {
        let (start, wall) = (Instant::now(), SystemTime::now());
        let mut watch = Watch::new(start, wall, None);
        assert_eq!(look(&mut watch, start + HOUR, wall + HOUR), None);
        assert_eq!(look(&mut watch, start + 2 * HOUR, wall + 3 * HOUR), None);
        let seen = look(&mut watch, start + 3 * HOUR, wall + YEAR);
        let should = wall + 4 * HOUR;
        let since = should;
        assert_eq!(seen, Some(Jump { should, since }));
        // Seen once; and back is not ahead.
        assert_eq!(look(&mut watch, start + 4 * HOUR, wall + YEAR + HOUR), None);
        assert_eq!(look(&mut watch, start + 5 * HOUR, wall), None);
    }

    #[test]
    fn a_clock_that_was_set_while_nobody_looked_is_seen_by_who_looks_next() {
        let (start, wall) = (Instant::now(), SystemTime::now());
        let mut watch = Watch::new(start, wall, Some(wall - YEAR));
        let seen = look(&mut watch, start + HOUR, wall + HOUR);
        let should = wall - YEAR + HOUR;
        assert_eq!(
            seen,
            Some(Jump {
                should,
                since: wall
            })
        );
        assert_eq!(look(&mut watch, start + 2 * HOUR, wall + 2 * HOUR), None);
        // One that was away for an hour, or before a clock was set back.
        for looked in [wall - HOUR, wall + YEAR] {
            let mut watch = Watch::new(start, wall, Some(looked));
            assert_eq!(look(&mut watch, start, wall), None);
        }
    }
}
