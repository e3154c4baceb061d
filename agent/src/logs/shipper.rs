//! The task that ships all streams of a node.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use berth_model::id::InstanceId;
use berth_proto::v1;
use tokio::sync::{mpsc, watch};
use tonic::transport::Channel;

use super::link::{Link, News};
use super::stream::{Answer, Next, Stream};
use super::watch::Watcher;
use crate::reconcile::Event;

/// Beside inotify, how often everything is looked at: for file systems that tell nothing.
const SWEEP: Duration = Duration::from_secs(30);

/// One start of an instance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The instance.
    pub id: InstanceId,
    /// The start's number.
    pub start: u32,
}

/// What the shipper is told.
#[derive(Debug)]
pub enum Command {
    /// Ship a start's log.
    Follow {
        /// Which.
        key: Key,
        /// The start folder.
        dir: PathBuf,
        /// The boot in which it runs, or ran.
        boot_id: String,
        /// Nothing will be written any more.
        ended: bool,
    },
    /// Nothing will be written any more.
    Ended(Key),
    /// The folders of earlier starts of this instance may go once they are shipped.
    Supersede(Key),
    /// Tell when all starts of this instance, which have ended, are shipped.
    Drain(InstanceId),
    /// The instance is deleted.
    Drop(InstanceId),
}

/// The task's state.
pub struct Shipper {
    commands: mpsc::UnboundedReceiver<Command>,
    events: mpsc::Sender<Event>,
    link: Link,
    watcher: Watcher<Key>,
    streams: BTreeMap<Key, Stream>,
    draining: BTreeSet<InstanceId>,
    /// Whose batch was sent last: the next one's turn comes first, so that none starves.
    turn: Option<Key>,
}

impl Shipper {
    /// The commands are few (some for each start of an instance), so that their queue needs no bound.
    /// Errors: the kernel has no inotify instance left.
    pub fn new(
        commands: mpsc::UnboundedReceiver<Command>,
        channel: watch::Receiver<Option<Channel>>,
        events: mpsc::Sender<Event>,
    ) -> std::io::Result<Self> {
        Ok(Self {
            commands,
            events,
            link: Link::new(channel),
            watcher: Watcher::new()?,
            streams: BTreeMap::new(),
            draining: BTreeSet::new(),
            turn: None,
        })
    }

    /// Runs until the commands' other end is gone.
    pub async fn run(mut self) {
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut watching = true;
        loop {
            self.pump();
            self.tell_drained().await;
            let paused = self.streams.values().filter_map(Stream::paused_until).min();
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                written = self.watcher.written(), if watching => match written {
                    Ok(written) => {
                        for (key, stream) in &mut self.streams {
                            if written.overflow || written.keys.contains(key) {
                                stream.written();
                            }
                        }
                    }
                    Err(error) => {
                        // From here on only the sweep looks.
                        tracing::error!(%error, "inotify failed; logs are shipped more slowly");
                        watching = false;
                    }
                },
                news = self.link.news() => self.news(news),
                () = until(paused) => {}
                _ = sweep.tick() => self.streams.values_mut().for_each(Stream::written),
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Follow {
                key,
                dir,
                boot_id,
                ended,
            } => {
                let stream = Stream::new(&dir, &boot_id, ended);
                if !ended {
                    let logs = stream.logs();
                    let watched = std::fs::create_dir_all(&logs)
                        .and_then(|()| self.watcher.add(&logs, key.clone()));
                    if let Err(error) = watched {
                        tracing::warn!(?logs, %error, "cannot watch a log; it is looked at now and then");
                    }
                }
                self.streams.insert(key, stream);
            }
            Command::Ended(key) => {
                self.watcher.remove(&key);
                if let Some(stream) = self.streams.get_mut(&key) {
                    stream.ended();
                }
            }
            Command::Supersede(key) => {
                let older = Key {
                    id: key.id.clone(),
                    start: 0,
                };
                for (_, stream) in self.streams.range_mut(older..key) {
                    stream.superseded = true;
                }
            }
            Command::Drain(id) => _ = self.draining.insert(id),
            Command::Drop(id) => {
                self.draining.remove(&id);
                let keys: Vec<Key> = self
                    .streams
                    .keys()
                    .filter(|key| key.id == id)
                    .cloned()
                    .collect();
                for key in keys {
                    self.watcher.remove(&key);
                    self.streams.remove(&key);
                }
            }
        }
    }

    fn news(&mut self, news: News) {
        match news {
            News::Up => {}
            News::Down => self.streams.values_mut().for_each(Stream::disconnected),
            News::Ack(ack) => {
                let Ok(id) = ack.instance.parse() else { return };
                let Some(stream) = self.streams.get_mut(&Key {
                    id,
                    start: ack.start,
                }) else {
                    return;
                };
                if stream.boot_id != ack.boot_id {
                    return;
                }
                if !ack.error.is_empty() {
                    tracing::warn!(
                        instance = ack.instance,
                        start = ack.start,
                        error = ack.error,
                        "the coordinator refused a piece of a log"
                    );
                }
                let answer = Answer {
                    durable: ack.durable,
                    refused: !ack.error.is_empty(),
                    unwanted: ack.unwanted,
                };
                stream.answered(answer, Instant::now());
            }
        }
    }

    /// Sends what can be sent, and deletes the folders that have had their time.
    fn pump(&mut self) {
        let now = Instant::now();
        let mut all: Vec<_> = self.streams.iter_mut().collect();
        let first =
            all.partition_point(|(key, _)| self.turn.as_ref().is_some_and(|turn| *key <= turn));
        all.rotate_left(first);
        for (key, stream) in all {
            if self.link.has_room() {
                let (offset, frames, hole) = match stream.next(now) {
                    Next::Probe => (0, Vec::new(), false),
                    Next::Batch {
                        offset,
                        bytes,
                        hole,
                    } => (offset, bytes, hole),
                    Next::Wait | Next::Complete => continue,
                };
                let batch = v1::LogBatch {
                    instance: key.id.to_string(),
                    start: key.start,
                    boot_id: stream.boot_id.clone(),
                    offset,
                    frames: frames.into(),
                    hole,
                };
                self.turn = Some(key.clone());
                if self.link.send(batch).is_err() {
                    stream.disconnected();
                }
            }
        }
        let gone = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.superseded && stream.is_complete());
        for key in gone.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            if let Some(stream) = self.streams.remove(&key)
                && let Err(error) = crate::files::remove_dir(&stream.dir)
            {
                tracing::warn!(
                    error = crate::chain(&error),
                    "cannot delete a start's folder"
                );
            }
        }
    }

    async fn tell_drained(&mut self) {
        let drained: Vec<InstanceId> = self
            .draining
            .iter()
            .filter(|id| {
                self.streams
                    .iter()
                    .all(|(key, stream)| key.id != **id || stream.is_complete())
            })
            .cloned()
            .collect();
        for id in drained {
            self.draining.remove(&id);
            // If nobody listens any more, the agent is ending.
            let _ = self.events.send(Event::LogsShipped { id }).await;
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
