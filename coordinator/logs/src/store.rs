//! The store: opening, appending, deleting.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use berth_model::id::ServiceName;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;

use crate::index::Index;
use crate::lines::start;
use crate::retention::{self, Plan, Watch};
use crate::writer::{BATCH, Request, SEGMENT_BYTES, Stats, Writer};
use crate::{Cursor, Lines, LogsError, Query, Retention, StreamKey, Swept, disk};

/// What the store has done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Lines taken.
    pub lines: u64,
    /// Bytes of frames taken.
    pub bytes: u64,
    /// Lines that nodes had to drop, by their own count.
    pub gap_lines: u64,
    /// Batches taken or known already.
    pub batches: u64,
    /// Times that files were synced.
    pub syncs: u64,
}

/// The log store. Cheap to clone; the last clone dropped ends its writer (which blocks shortly).
#[derive(Debug, Clone)]
pub struct LogStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: Arc<Path>,
    retention: Retention,
    watch: Mutex<Watch>,
    index: Arc<Index>,
    stats: Arc<Stats>,
    /// Always there but while the store is dropped.
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl LogStore {
    /// Opens a folder, made if need be, and starts the writer's thread. Only folders are looked at, so it
    /// is quick however much is kept. One process at a time: the caller sees to that.
    pub fn open(dir: &Path, retention: Retention) -> Result<Self, LogsError> {
        Self::open_with(dir, retention, SEGMENT_BYTES)
    }

    pub(crate) fn open_with(
        dir: &Path,
        retention: Retention,
        segment_bytes: u64,
    ) -> Result<Self, LogsError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(LogsError::io("make", dir))?;
        let root: Arc<Path> = dir.into();
        let index = Arc::new(Index::new(disk::streams(&root)?));
        let stats = Arc::new(Stats::default());
        let writer = Writer::new(
            Arc::clone(&root),
            Arc::clone(&index),
            Arc::clone(&stats),
            segment_bytes,
        );
        let looked = retention::looked(&root)?;
        let watch = Watch::new(Instant::now(), SystemTime::now(), looked);
        let (requests, queue) = mpsc::channel(BATCH);
        let thread = thread::Builder::new()
            .name("logs".to_owned())
            .spawn(move || writer.run(queue))
            .map_err(LogsError::io("start the writer of", dir))?;
        Ok(Self(Arc::new(Inner {
            root,
            retention,
            watch: Mutex::new(watch),
            index,
            stats,
            requests: Some(requests),
            thread: Some(thread),
        })))
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, LogsError>>) -> Request,
    ) -> Result<T, LogsError> {
        let (reply, answer) = oneshot::channel();
        let requests = self.0.requests.as_ref().ok_or(LogsError::Stopped)?;
        let sent = requests.send(request(reply)).await;
        sent.map_err(|_| LogsError::Stopped)?;
        answer.await.map_err(|_| LogsError::Stopped)?
    }

    /// Length in bytes of what is safely here of a stream; 0 for one never seen.
    pub async fn durable(&self, stream: &StreamKey) -> Result<u64, LogsError> {
        self.append(stream, 0, Bytes::new()).await
    }

    /// Takes whole frames at an offset of a stream, and answers with the durable length once they are
    /// on disk. What is here already is passed over; no frames only ask for the length. Errors:
    /// [`LogsError::WrongOffset`] if bytes between are missing, [`LogsError::BadFrames`]; after any
    /// other the same may be sent again.
    pub async fn append(
        &self,
        stream: &StreamKey,
        offset: u64,
        frames: Bytes,
    ) -> Result<u64, LogsError> {
        let key = stream.clone();
        self.ask(|reply| Request::Append {
            key,
            offset,
            frames,
            reply,
        })
        .await
    }

    /// Goes on at a later offset of a stream, where its node has the bytes between no more (they were
    /// acknowledged, and then lost here, as after a restore). Readers are told. Answers with the
    /// durable length, which is a later one already if the stream is longer.
    pub async fn skip_to(&self, stream: &StreamKey, offset: u64) -> Result<u64, LogsError> {
        let key = stream.clone();
        self.ask(|reply| Request::SkipTo { key, offset, reply })
            .await
    }

    /// The lines there are now, in the order of time; each stream's own order is kept. Must be called
    /// within a runtime.
    pub fn read(&self, query: Query) -> Lines {
        start(&self.0.root, &self.0.index, query, Cursor::default(), false)
    }

    /// The lines there are now behind a place: what is left of a [`LogStore::follow`] that is to end. Must
    /// be called within a runtime.
    pub fn rest(&self, query: Query, from: Cursor) -> Lines {
        start(&self.0.root, &self.0.index, query, from, false)
    }

    /// The lines there are, then those that come, until [`Lines`] is dropped: none twice, none left out.
    /// With a cursor, only what follows it. A service that has no logs yet is waited for. Must be called
    /// within a runtime.
    pub fn follow(&self, query: Query, from: Option<Cursor>) -> Lines {
        let from = from.unwrap_or_default();
        start(&self.0.root, &self.0.index, query, from, true)
    }

    /// Deletes all logs of a service. They are out of sight when this answers.
    pub async fn delete_service(&self, service: &ServiceName) -> Result<(), LogsError> {
        let service = service.clone();
        let hidden = self
            .ask(|reply| Request::DeleteService { service, reply })
            .await?;
        let Some(hidden) = hidden else { return Ok(()) };
        // What is left over if this is interrupted goes at the next opening.
        let removed = spawn_blocking(move || {
            fs::remove_dir_all(&hidden).map_err(LogsError::io("remove", &hidden))
        });
        removed.await.map_err(|_| LogsError::Stopped)?
    }

    /// Takes away what is beyond the retention. To be called now and then.
    pub async fn sweep(&self) -> Result<Swept, LogsError> {
        let inner = Arc::clone(&self.0);
        let planned = spawn_blocking(move || {
            let streams = inner.index.all();
            let (now, wall) = (Instant::now(), SystemTime::now());
            let mut retention = inner.retention;
            if let Err(error) = inner.keep_ages(&streams, now, wall) {
                tracing::warn!(%error, "the logs cannot be given the age that they have: none is too old for now");
                retention.max_age = Duration::MAX;
            }
            retention::plan(&inner.root, streams, &retention, wall)
        });
        let plan: Plan = planned.await.map_err(|_| LogsError::Stopped)??;
        let removed = spawn_blocking(move || {
            let mut swept = Swept::default();
            for (path, bytes) in plan.files {
                swept.add(retention::remove(&path, bytes)?);
            }
            Ok::<_, LogsError>(swept)
        });
        let mut swept = removed.await.map_err(|_| LogsError::Stopped)??;
        for (key, end) in plan.empty {
            swept.add(self.ask(|reply| Request::Empty { key, end, reply }).await?);
        }
        for (key, end) in plan.forget {
            self.ask(|reply| Request::Forget { key, end, reply })
                .await?;
        }
        Ok(swept)
    }

    /// Figures for the metrics.
    pub fn counters(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let stats = &self.0.stats;
        Counters {
            lines: read(&stats.lines),
            bytes: read(&stats.bytes),
            gap_lines: read(&stats.gap_lines),
            batches: read(&stats.batches),
            syncs: read(&stats.syncs),
        }
    }
}

impl Inner {
    /// Has the logs keep their age if the clock was set ahead since the last call that succeeded. Blocks.
    fn keep_ages(
        &self,
        streams: &[StreamKey],
        now: Instant,
        wall: SystemTime,
    ) -> Result<(), LogsError> {
        let watch = self.watch.lock();
        let mut watch = watch.unwrap_or_else(PoisonError::into_inner);
        if let Some(jump) = watch.jump(now, wall) {
            tracing::warn!(
                "the clock was set ahead, or nobody looked at it for long: the logs keep their age"
            );
            retention::shift(&self.root, streams, &jump, wall)?;
        }
        watch.seen(now, wall);
        // A full disk must not keep anything from being deleted.
        if let Err(error) = retention::note(&self.root, wall) {
            tracing::warn!(%error, "when the clock was looked at is not noted");
        }
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the log store's writer has panicked");
        }
    }
}
