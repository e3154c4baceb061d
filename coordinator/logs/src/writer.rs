//! The one thread that writes: what waits is written, synced together, and then answered.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use berth_logfile::{Frames, LogError, Mirror};
use berth_model::id::ServiceName;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::index::Index;
use crate::names::Names;
use crate::{LogsError, StreamKey, Swept, disk, retention};

/// Bytes after which a segment is closed and the next begun.
pub(crate) const SEGMENT_BYTES: u64 = 4 << 20;

/// Streams that are kept open.
const OPEN: usize = 256;

/// Requests that are served together.
pub(crate) const BATCH: usize = 64;

/// Threads that sync at the same time: the file system joins what they ask for.
const SYNCERS: usize = 8;

type Reply<T> = oneshot::Sender<Result<T, LogsError>>;

/// What the writer is asked for.
#[derive(Debug)]
pub(crate) enum Request {
    /// Take frames (none: only tell the length).
    Append {
        key: StreamKey,
        offset: u64,
        frames: Bytes,
        reply: Reply<u64>,
    },
    /// Go on at a later offset.
    SkipTo {
        key: StreamKey,
        offset: u64,
        reply: Reply<u64>,
    },
    /// Move a service's folder away: tells where to.
    DeleteService {
        service: ServiceName,
        reply: Reply<Option<PathBuf>>,
    },
    /// Delete all of a stream if it still ends at `end`; its length is remembered.
    Empty {
        key: StreamKey,
        end: u64,
        reply: Reply<Swept>,
    },
    /// Forget a stream that is empty and still ends at `end`.
    Forget {
        key: StreamKey,
        end: u64,
        reply: Reply<()>,
    },
}

/// Figures that are counted as frames are taken.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) lines: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) gap_lines: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) syncs: AtomicU64,
}

#[derive(Debug)]
struct Open {
    mirror: Mirror,
    names: Names,
    used: u64,
}

/// An answer that waits for the sync.
struct Waiting {
    key: StreamKey,
    reply: Reply<u64>,
    /// What happened when the frames were taken.
    result: Result<(), Refusal>,
}

/// Why frames were not taken; told with the length that is durable after the sync.
enum Refusal {
    Offset(u64),
    Frames(u64),
    Other(LogsError),
}

/// The writer's state, moved into its thread.
#[derive(Debug)]
pub(crate) struct Writer {
    root: Arc<Path>,
    index: Arc<Index>,
    stats: Arc<Stats>,
    segment_bytes: u64,
    open: HashMap<StreamKey, Open>,
    rounds: u64,
}

impl Writer {
    pub(crate) fn new(
        root: Arc<Path>,
        index: Arc<Index>,
        stats: Arc<Stats>,
        segment_bytes: u64,
    ) -> Self {
        Self {
            root,
            index,
            stats,
            segment_bytes,
            open: HashMap::new(),
            rounds: 0,
        }
    }

    /// Serves requests until the store is closed.
    pub(crate) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut batch = Vec::new();
        while requests.blocking_recv_many(&mut batch, BATCH) > 0 {
            self.rounds += 1;
            let mut waiting = Vec::new();
            for request in batch.drain(..) {
                self.serve(request, &mut waiting);
            }
            self.settle(waiting);
            self.close_unused();
        }
    }

    fn serve(&mut self, request: Request, waiting: &mut Vec<Waiting>) {
        // Who has gone away does not wait for the answer.
        match request {
            Request::Append {
                key,
                offset,
                frames,
                reply,
            } => {
                let result = self.take(&key, offset, &frames);
                waiting.push(Waiting { key, reply, result });
            }
            other => {
                // These change files under the mirrors: what waits is settled first.
                self.settle(std::mem::take(waiting));
                self.serve_alone(other);
            }
        }
    }

    fn serve_alone(&mut self, request: Request) {
        match request {
            Request::Append { .. } => {}
            Request::SkipTo { key, offset, reply } => {
                let _ = reply.send(self.skip_to(&key, offset));
            }
            Request::DeleteService { service, reply } => {
                self.open
                    .retain(|key, _| key.instance.slot.service != service);
                let hidden = disk::hide_service(&self.root, &service);
                if hidden.is_ok() {
                    self.index.remove_service(&service);
                }
                let _ = reply.send(hidden);
            }
            Request::Empty { key, end, reply } => {
                self.open.remove(&key);
                let _ = reply.send(retention::empty(&key.dir(&self.root), end));
            }
            Request::Forget { key, end, reply } => {
                self.open.remove(&key);
                let forgotten = retention::forget(&key.dir(&self.root), end);
                if matches!(forgotten, Ok(true)) {
                    self.index.remove(&key);
                }
                let _ = reply.send(forgotten.map(drop));
            }
        }
    }

    fn opened(&mut self, key: &StreamKey) -> Result<&mut Open, LogsError> {
        let rounds = self.rounds;
        if !self.open.contains_key(key) {
            let dir = disk::make_stream_dir(&self.root, key)?;
            let open = Open {
                mirror: Mirror::open(&dir, self.segment_bytes)?,
                names: Names::load(&dir)?,
                used: 0,
            };
            self.open.insert(key.clone(), open);
        }
        let open = self.open.get_mut(key).ok_or(LogsError::Stopped)?;
        open.used = rounds;
        Ok(open)
    }

    /// Takes what is new of the frames. It is not durable yet.
    fn take(&mut self, key: &StreamKey, offset: u64, frames: &[u8]) -> Result<(), Refusal> {
        if frames.is_empty() && !key.dir(&self.root).exists() {
            return Ok(());
        }
        let (root, stats) = (Arc::clone(&self.root), Arc::clone(&self.stats));
        let open = self.opened(key).map_err(Refusal::Other)?;
        let length = open.mirror.length();
        if offset > length && !frames.is_empty() {
            return Err(Refusal::Offset(offset));
        }
        // What is here already is passed over: the same offset has the same bytes.
        let known = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let news = frames.get(known..).unwrap_or_default();
        let mut names = open.names.clone();
        let counts =
            count(news, &mut names).map_err(|valid| Refusal::Frames(length + valid as u64))?;
        if counts.names {
            // Before the frames, which are looked through only once.
            names.save(&key.dir(&root)).map_err(Refusal::Other)?;
            open.names = names;
        }
        if let Err(error) = open.mirror.append(length, news) {
            self.open.remove(key);
            return Err(Refusal::Other(LogsError::of_mirror(error, key, length)));
        }
        stats.lines.fetch_add(counts.lines, Ordering::Relaxed);
        stats
            .gap_lines
            .fetch_add(counts.gap_lines, Ordering::Relaxed);
        stats.bytes.fetch_add(news.len() as u64, Ordering::Relaxed);
        stats
            .batches
            .fetch_add(u64::from(!frames.is_empty()), Ordering::Relaxed);
        Ok(())
    }

    fn skip_to(&mut self, key: &StreamKey, offset: u64) -> Result<u64, LogsError> {
        let open = self.opened(key)?;
        if offset > open.mirror.length() {
            let length = open.mirror.length();
            open.mirror
                .skip_to(offset)
                .map_err(|error| LogsError::of_mirror(error, key, length))?;
        }
        let durable = open.mirror.sync()?;
        // A file of that offset, so that the length is remembered however the process ends.
        retention::mark(&key.dir(&self.root), durable)?;
        self.index.set(key, durable);
        Ok(durable)
    }

    /// Syncs what was taken, then answers.
    fn settle(&mut self, waiting: Vec<Waiting>) {
        let mut failed = self.sync();
        for Waiting { key, reply, result } in waiting {
            let durable = self.open.get(&key).map(|open| open.mirror.durable());
            let answer = match (result, failed.get_mut(&key), durable) {
                (_, Some(error), _) => Err(LogsError::Log(Arc::clone(error))),
                (Ok(()), None, Some(durable)) => {
                    self.index.set(&key, durable);
                    Ok(durable)
                }
                // Asked for the length of a stream that was never seen.
                (Ok(()), None, None) if !key.dir(&self.root).exists() => Ok(0),
                // Taken, and then given up because of a later failure in the same round.
                (Ok(()), None, None) => Err(LogsError::Unsure),
                (Err(Refusal::Other(error)), _, _) => Err(error),
                (Err(Refusal::Offset(offset)), _, durable) => Err(LogsError::WrongOffset {
                    stream: Box::new(key),
                    offset,
                    durable: durable.unwrap_or(0),
                }),
                (Err(Refusal::Frames(offset)), _, durable) => Err(LogsError::BadFrames {
                    stream: Box::new(key),
                    offset,
                    durable: durable.unwrap_or(0),
                }),
            };
            let _ = reply.send(answer);
        }
    }

    /// Syncs all that was written to, side by side. What fails is closed: only opening it anew shows
    /// what is on disk.
    fn sync(&mut self) -> BTreeMap<StreamKey, Arc<LogError>> {
        let mut dirty: Vec<(&StreamKey, &mut Mirror)> = self
            .open
            .iter_mut()
            .map(|(key, open)| (key, &mut open.mirror))
            .filter(|(_, mirror)| mirror.durable() < mirror.length())
            .collect();
        let syncs = dirty.len() as u64;
        self.stats.syncs.fetch_add(syncs, Ordering::Relaxed);
        let failed = Mutex::new(BTreeMap::new());
        let sync_share = |share: &mut [(&StreamKey, &mut Mirror)]| {
            for (key, mirror) in share {
                if let Err(error) = mirror.sync() {
                    let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                    failed.insert((*key).clone(), Arc::new(error));
                }
            }
        };
        let share = dirty.len().div_ceil(SYNCERS).max(1);
        let mut shares = dirty.chunks_mut(share);
        let own = shares.next();
        thread::scope(|scope| {
            for share in shares {
                let sync_share = &sync_share;
                let thread = thread::Builder::new().spawn_scoped(scope, || sync_share(share));
                if let Err(error) = thread {
                    // Their answers tell the old length, and the next round syncs them.
                    tracing::warn!(%error, "no thread to sync logs with");
                }
            }
            if let Some(own) = own {
                sync_share(own);
            }
        });
        let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (key, error) in &failed {
            tracing::error!(stream = %key, %error, "a log could not be synced");
            self.open.remove(key);
        }
        failed
    }

    fn close_unused(&mut self) {
        while self.open.len() > OPEN {
            let oldest = self.open.iter().min_by_key(|(_, open)| open.used);
            let Some(key) = oldest.map(|(key, _)| key.clone()) else {
                return;
            };
            self.open.remove(&key);
        }
    }
}

#[derive(Default)]
struct Counts {
    lines: u64,
    gap_lines: u64,
    names: bool,
}

/// Counts what is in frames, and learns the names. Error: the length of the valid part.
fn count(bytes: &[u8], names: &mut Names) -> Result<Counts, usize> {
    let mut counts = Counts::default();
    let mut frames = Frames::new(bytes);
    while let Some(frame) = frames.next() {
        let Ok((_, frame)) = frame else {
            return Err(frames.offset());
        };
        counts.gap_lines += frame.gap().map_or(0, |gap| gap.lines);
        counts.lines += u64::from(frame.is_line() && !frame.is_partial());
        if let Some(name) = frame.process_name() {
            counts.names |= names.learn(frame.process, name);
        }
    }
    Ok(counts)
}
