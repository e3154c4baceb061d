//! Reads one stream forward, line by line.

use std::path::{Path, PathBuf};

use berth_logfile::{Frame, LogError, Tail, TailReader, segments};
use berth_model::record::LogLine;

use crate::line::{Filter, hole};
use crate::names::Names;
use crate::{LogsError, StreamKey};

/// Bytes read at a time.
const CHUNK: usize = 64 * 1024;

/// One line, and the offset behind it.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) key: StreamKey,
    pub(crate) next: u64,
    pub(crate) line: LogLine,
}

/// What is held while a stream is being read: file and buffer.
#[derive(Debug)]
struct Loaded {
    tail: TailReader,
    bytes: Vec<u8>,
    at: usize,
    names: Names,
    head: Option<Item>,
}

/// A stream, and the place up to which it was read.
#[derive(Debug)]
pub(crate) struct Source {
    key: StreamKey,
    dir: PathBuf,
    /// Offset of the next frame to be looked at.
    next: u64,
    /// Not to be read beyond.
    end: u64,
    /// Length that is known to be durable; 0 if it is not known.
    durable: u64,
    last_time: u64,
    loaded: Option<Loaded>,
}

impl Source {
    /// Does no I/O.
    pub(crate) fn new(root: &Path, key: StreamKey, next: u64, end: u64) -> Self {
        Self {
            dir: key.dir(root),
            key,
            next,
            end,
            durable: 0,
            last_time: 0,
            loaded: None,
        }
    }

    /// Which stream.
    pub(crate) fn key(&self) -> &StreamKey {
        &self.key
    }

    /// Offset of the next frame to be looked at.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Time of the last frame that was looked at: a guess at the next one's.
    pub(crate) fn last_time(&self) -> u64 {
        self.last_time
    }

    /// Takes note of the durable length.
    pub(crate) fn know(&mut self, durable: u64) {
        self.durable = durable;
    }

    /// Lets go of file and buffer. The place is kept.
    pub(crate) fn unload(&mut self) {
        self.loaded = None;
    }

    /// The time of the next line that is wanted; none if there is none yet. `cancelled` is asked now and
    /// then, and ends the search.
    pub(crate) fn peek(
        &mut self,
        filter: &Filter,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<u64>, LogsError> {
        let mut loaded = match self.loaded.take() {
            Some(loaded) => loaded,
            None => Loaded {
                tail: TailReader::new(&self.dir, self.next),
                bytes: Vec::new(),
                at: 0,
                names: Names::load(&self.dir)?,
                head: None,
            },
        };
        let found = self.search(&mut loaded, filter, cancelled);
        self.loaded = Some(loaded);
        found
    }

    fn search(
        &mut self,
        loaded: &mut Loaded,
        filter: &Filter,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<u64>, LogsError> {
        loop {
            if let Some(item) = &loaded.head {
                return Ok(Some(item.line.time_nanos));
            }
            if self.next >= self.end || cancelled() {
                return Ok(None);
            }
            // The tail reader gives whole, valid frames only.
            while let Ok((frame, length)) = Frame::decode(&loaded.bytes[loaded.at..]) {
                loaded.at += length;
                self.next += length as u64;
                self.last_time = frame.time;
                if let Some(name) = frame.process_name() {
                    loaded.names.learn(frame.process, name);
                }
                if let Some(line) = filter.line(&self.key, &loaded.names, &frame) {
                    loaded.head = Some(self.item(line));
                    break;
                }
                if self.next >= self.end {
                    return Ok(None);
                }
            }
            if loaded.head.is_none() && !self.refill(loaded)? {
                return Ok(None);
            }
        }
    }

    fn item(&self, line: LogLine) -> Item {
        Item {
            key: self.key.clone(),
            next: self.next,
            line,
        }
    }

    /// Reads the next bytes: whether there are any.
    fn refill(&mut self, loaded: &mut Loaded) -> Result<bool, LogsError> {
        loaded.at = 0;
        loaded.bytes.clear();
        match loaded.tail.read(CHUNK) {
            Ok(Tail::Frames { bytes, .. }) => loaded.bytes = bytes,
            Ok(Tail::NothingNew) => return Ok(false),
            Ok(Tail::Missing { next }) => self.jump(loaded, next),
            Err(LogError::Damaged { path, offset }) => {
                let rest = segments(&self.dir)?;
                let next = rest.iter().find(|segment| segment.base > self.next);
                if next.is_none() && self.durable <= self.next {
                    // What a crash left behind the last whole frame; it goes when the stream goes on.
                    return Ok(false);
                }
                tracing::error!(path = %path.display(), offset, "a log is damaged");
                match next {
                    Some(segment) => self.jump(loaded, segment.base),
                    None => return Err(LogError::Damaged { path, offset }.into()),
                }
            }
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }

    /// Goes on behind bytes that are not there. At the very beginning that is retention, and expected.
    fn jump(&mut self, loaded: &mut Loaded, to: u64) {
        let missing = to - self.next;
        let told = self.next > 0;
        self.next = to;
        loaded.tail.seek(to);
        if told && self.next <= self.end {
            loaded.head = Some(self.item(hole(&self.key, self.last_time, missing)));
        }
    }

    /// Takes the line that was peeked at.
    pub(crate) fn take(&mut self) -> Option<Item> {
        self.loaded.as_mut()?.head.take()
    }
}
