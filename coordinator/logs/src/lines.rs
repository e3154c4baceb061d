//! The task that reads, and the lines that come of it.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use berth_model::record::LogLine;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::index::Index;
use crate::merge::Merge;
use crate::source::Item;
use crate::{Cursor, LogsError, Query, StreamKey};

/// Lines handed over at a time.
const BATCH: usize = 256;

/// Bytes of lines handed over at a time, about.
const BATCH_BYTES: usize = 256 * 1024;

/// Batches that may wait for the reader: with the two figures above, what one reader costs in memory.
const CHANNEL: usize = 2;

#[derive(Debug)]
enum Event {
    /// Where the reading begins.
    Places(BTreeMap<StreamKey, u64>),
    Batch(Vec<Result<Item, LogsError>>),
}

/// Lines as they are read, a few at a time. Dropping it ends the reading.
#[derive(Debug)]
pub struct Lines {
    events: mpsc::Receiver<Event>,
    batch: VecDeque<Result<Item, LogsError>>,
    places: BTreeMap<StreamKey, u64>,
}

impl Lines {
    /// The next line; none at the end. When following, waits for it. A stream that cannot be read is told
    /// as an error, and the others go on. May be cancelled without losing a line.
    pub async fn next(&mut self) -> Option<Result<LogLine, LogsError>> {
        loop {
            match self.batch.pop_front() {
                Some(Ok(item)) => {
                    self.places.insert(item.key, item.next);
                    return Some(Ok(item.line));
                }
                Some(Err(error)) => return Some(Err(error)),
                None => match self.events.recv().await? {
                    Event::Places(places) => self.places = places,
                    Event::Batch(batch) => self.batch = batch.into(),
                },
            }
        }
    }

    /// The place behind the last line that [`Lines::next`] gave. A reading from there gives exactly what
    /// follows it. It has one part per stream, so it is not meant for every line of a long listing.
    /// Empty, which is the beginning, before [`Lines::next`] has given anything.
    pub fn cursor(&self) -> Cursor {
        Cursor(self.places.clone())
    }
}

/// Starts the task.
pub(crate) fn start(
    root: &Arc<Path>,
    index: &Arc<Index>,
    query: Query,
    from: Cursor,
    follow: bool,
) -> Lines {
    let (sender, events) = mpsc::channel(CHANNEL);
    let task = Task {
        root: Arc::clone(root),
        index: Arc::clone(index),
        query,
        follow,
        sender,
    };
    tokio::spawn(async move {
        // Whoever reads is gone, or was told the error, where this ends early.
        let _ = task.run(from).await;
    });
    Lines {
        events,
        batch: VecDeque::new(),
        places: BTreeMap::new(),
    }
}

struct Task {
    root: Arc<Path>,
    index: Arc<Index>,
    query: Query,
    follow: bool,
    sender: mpsc::Sender<Event>,
}

/// The reader is gone.
struct Gone;

impl Task {
    async fn run(self, from: Cursor) -> Result<(), Gone> {
        let mut ticks = self.index.subscribe(self.query.scope.service());
        let mut left = self.query.limit.unwrap_or(usize::MAX);
        let (root, index, query, follow) = (
            Arc::clone(&self.root),
            Arc::clone(&self.index),
            self.query.clone(),
            self.follow,
        );
        let opened = spawn_blocking(move || Merge::open(&root, &index, &query, &from.0, follow));
        let mut merge = self.told(opened.await).await?;
        self.send(Event::Places(merge.places())).await?;
        loop {
            // Marked as seen before looking: what comes after the look wakes.
            ticks.borrow_and_update();
            let known = self.index.streams(&self.query.scope);
            let refreshed = spawn_blocking(move || merge.refresh(known).map(|()| merge));
            merge = self.told(refreshed.await).await?;
            loop {
                let sender = self.sender.clone();
                let pulled = spawn_blocking(move || pull(merge, left, &|| sender.is_closed()));
                let batch;
                (merge, batch) = self.told(pulled.await.map(Ok)).await?;
                if batch.is_empty() {
                    break;
                }
                left -= batch.iter().filter(|item| item.is_ok()).count();
                self.send(Event::Batch(batch)).await?;
            }
            if !self.follow || left == 0 {
                return Ok(());
            }
            tokio::select! {
                changed = ticks.changed() => changed.map_err(|_| Gone)?,
                () = self.sender.closed() => return Err(Gone),
            }
        }
    }

    async fn send(&self, event: Event) -> Result<(), Gone> {
        self.sender.send(event).await.map_err(|_| Gone)
    }

    /// What a blocking step came to; an error ends the reading and is told.
    async fn told<T>(
        &self,
        result: Result<Result<T, LogsError>, tokio::task::JoinError>,
    ) -> Result<T, Gone> {
        let error = match result {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error,
            Err(_) => LogsError::Stopped,
        };
        self.send(Event::Batch(vec![Err(error)])).await?;
        Err(Gone)
    }
}

/// The next lines, at most `left`; none if there are none now.
fn pull(
    mut merge: Merge,
    left: usize,
    cancelled: &dyn Fn() -> bool,
) -> (Merge, Vec<Result<Item, LogsError>>) {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while batch.len() < BATCH.min(left) && bytes < BATCH_BYTES {
        let Some(item) = merge.pull(cancelled) else {
            break;
        };
        bytes += item.as_ref().map_or(0, |item| item.line.text.len());
        batch.push(item);
    }
    (merge, batch)
}
