//! The shipping of one stream: what to send next, and what an answer means.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_logfile::{LogError, Tail, TailReader, segments};
use berth_shim::state::LOGS_DIR;

/// Most bytes of a batch (one frame is sent however long it is).
const BATCH: usize = 256 * 1024;

/// Segments that stay whatever was acknowledged: the one that is written, and one before, so that the
/// last lines can be shown.
const KEPT: usize = 2;

/// What to do with a stream now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask for the durable length.
    Probe,
    /// Send this.
    Batch {
        /// Offset of the first byte.
        offset: u64,
        /// Whole frames.
        bytes: Vec<u8>,
        /// The node has nothing between the durable length and the offset any more.
        hole: bool,
    },
    /// Nothing now: an answer is awaited, or nothing is new.
    Wait,
    /// All of it is on the coordinator's disk, and no more will come.
    Complete,
}

/// An answer of the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) durable: u64,
    pub(super) refused: bool,
    pub(super) unwanted: bool,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    /// The start folder.
    pub(super) dir: PathBuf,
    pub(super) boot_id: String,
    reader: TailReader,
    /// What the coordinator has; none until it was asked on this connection.
    durable: Option<u64>,
    /// Where the batch in flight ends.
    in_flight: Option<u64>,
    /// The next batch begins behind a hole.
    hole: bool,
    /// Something may have been written since it was last read.
    dirty: bool,
    /// Nothing will be written any more.
    ended: bool,
    complete: bool,
    unwanted: bool,
    /// Up to where segments were deleted.
    swept: u64,
    failures: u32,
    paused: Option<Instant>,
    /// Its folder goes as soon as it is complete.
    pub(super) superseded: bool,
}

impl Stream {
    pub(super) fn new(dir: &Path, boot_id: &str, ended: bool) -> Self {
        Self {
            dir: dir.to_owned(),
            boot_id: boot_id.to_owned(),
            reader: TailReader::new(&dir.join(LOGS_DIR), 0),
            durable: None,
            in_flight: None,
            hole: false,
            dirty: true,
            ended,
            complete: false,
            unwanted: false,
            swept: 0,
            failures: 0,
            paused: None,
            superseded: false,
        }
    }

    pub(super) fn logs(&self) -> PathBuf {
        self.dir.join(LOGS_DIR)
    }

    pub(super) fn written(&mut self) {
        self.dirty = true;
    }

    pub(super) fn ended(&mut self) {
        self.ended = true;
        self.dirty = true;
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// When a paused one goes on.
    pub(super) fn paused_until(&self) -> Option<Instant> {
        self.paused
    }

    /// The connection is gone: what was in flight may have arrived or not.
    pub(super) fn disconnected(&mut self) {
        self.durable = None;
        self.in_flight = None;
        self.paused = None;
    }

    /// What to do now, on a connection. Reads files.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        if self.complete {
            return Next::Complete;
        }
        if self.in_flight.is_some() || self.paused.is_some_and(|until| until > now) {
            return Next::Wait;
        }
        self.paused = None;
        if self.unwanted {
            return self.discard();
        }
        if self.durable.is_none() {
            self.in_flight = Some(0);
            return Next::Probe;
        }
        while self.dirty {
            match self.reader.read(BATCH) {
                Ok(Tail::Frames { offset, bytes }) => {
                    self.in_flight = Some(offset + bytes.len() as u64);
                    return Next::Batch {
                        offset,
                        bytes,
                        hole: std::mem::take(&mut self.hole),
                    };
                }
                Ok(Tail::NothingNew) => self.dirty = false,
                Ok(Tail::Missing { next }) => {
                    tracing::warn!(logs = ?self.logs(), from = self.reader.offset(), to = next,
                        "a part of a log is gone, from here and from the coordinator");
                    self.hole = true;
                    self.reader.seek(next);
                }
                Err(error) => return self.damaged(&error, now),
            }
        }
        if self.ended {
            self.delete_up_to(self.reader.offset());
            self.complete = true;
            return Next::Complete;
        }
        Next::Wait
    }

    /// A damaged piece is passed over, as nothing can be made of it: on to the next segment, or, if it is the
    /// last one, until that changes.
    fn damaged(&mut self, error: &LogError, now: Instant) -> Next {
        tracing::error!(error = crate::chain(error), "cannot read a log");
        if !matches!(error, LogError::Damaged { .. }) {
            self.pause(now);
            return Next::Wait;
        }
        let next = segments(&self.logs()).ok().and_then(|list| {
            list.into_iter()
                .find(|segment| segment.base > self.reader.offset())
        });
        match next {
            Some(segment) => {
                self.hole = true;
                self.reader.seek(segment.base);
                self.pause(now);
            }
            None => {
                self.dirty = false;
                self.complete = self.ended;
            }
        }
        Next::Wait
    }

    /// Of an unwanted stream nothing is sent; its files go, so that they do not fill the budget.
    fn discard(&mut self) -> Next {
        self.dirty = false;
        self.delete_up_to(u64::MAX);
        self.complete = self.ended;
        if self.complete {
            Next::Complete
        } else {
            Next::Wait
        }
    }

    /// The coordinator answered.
    pub(super) fn answered(&mut self, answer: Answer, now: Instant) {
        let Some(sent) = self.in_flight.take() else {
            return;
        };
        let asked = self.durable.is_none();
        self.unwanted |= answer.unwanted;
        if self.unwanted {
            return;
        }
        if asked && !answer.refused {
            self.reader.seek(answer.durable);
            self.dirty = true;
        } else if answer.refused || answer.durable != sent {
            // Go on where the coordinator is; not at once, in case it cannot take anything now.
            self.reader.seek(answer.durable);
            self.dirty = true;
            self.pause(now);
        } else {
            self.failures = 0;
        }
        self.durable = Some(answer.durable);
        if answer.durable >= self.swept + BATCH as u64 || self.ended {
            self.delete_up_to(answer.durable);
            self.swept = answer.durable;
        }
    }

    fn pause(&mut self, now: Instant) {
        self.failures += 1;
        let wait = Duration::from_millis(100).saturating_mul(1 << self.failures.min(10));
        self.paused = Some(now + wait.min(Duration::from_secs(30)));
    }

    fn delete_up_to(&self, durable: u64) {
        let Ok(list) = segments(&self.logs()) else {
            return;
        };
        let closed = list.len().saturating_sub(KEPT);
        for segment in list
            .iter()
            .take(closed)
            .filter(|segment| segment.end() <= durable)
        {
            if let Err(error) = std::fs::remove_file(&segment.path) {
                tracing::warn!(path = ?segment.path, %error, "cannot delete a shipped log segment");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use berth_logfile::{Frame, Mirror, SegmentWriter, WriterLimits};

    use super::*;

    struct Rig {
        _dir: tempfile::TempDir,
        writer: SegmentWriter,
        mirror: Mirror,
        stream: Stream,
        written: Vec<u8>,
    }

    fn rig() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let start = dir.path().join("1");
        let limits = WriterLimits {
            segment_bytes: 200,
            budget_bytes: 1 << 20,
        };
        let writer = SegmentWriter::open(&start.join(LOGS_DIR), limits).unwrap();
        let mirror = Mirror::open(&dir.path().join("mirror"), 1 << 20).unwrap();
        let stream = Stream::new(&start, "boot", false);
        Rig {
            _dir: dir,
            writer,
            mirror,
            stream,
            written: Vec::new(),
        }
    }

    impl Rig {
        fn write(&mut self, lines: usize) {
            for i in 0..lines {
                let text = format!("line {i}");
                let frame = Frame {
                    time: 1,
                    stream: berth_logfile::Stream::Stdout,
                    process: 0,
                    flags: 0,
                    payload: text.as_bytes(),
                };
                self.writer.append(&frame).unwrap();
                frame.encode(&mut self.written);
                self.writer.flush().unwrap();
            }
            self.stream.written();
        }

        fn coordinator(&mut self, next: Next) -> Option<Answer> {
            let answer = |durable, refused| {
                Some(Answer {
                    durable,
                    refused,
                    unwanted: false,
                })
            };
            match next {
                Next::Probe => answer(self.mirror.durable(), false),
                Next::Batch { offset, bytes, .. } => match self.mirror.append_at(offset, &bytes) {
                    Ok(durable) => answer(durable, false),
                    Err(_) => answer(self.mirror.durable(), true),
                },
                Next::Wait | Next::Complete => None,
            }
        }

        fn ship(&mut self) {
            let mut now = Instant::now();
            for _ in 0..100 {
                let next = self.stream.next(now);
                now += Duration::from_secs(60);
                if let Some(answer) = self.coordinator(next) {
                    self.stream.answered(answer, now);
                }
            }
        }

        fn mirrored(&self) -> Vec<u8> {
            let dir = self._dir.path().join("mirror");
            segments(&dir)
                .unwrap()
                .iter()
                .flat_map(|s| std::fs::read(&s.path).unwrap())
                .collect()
        }
    }

    #[test]
    fn everything_arrives_once_whatever_is_lost_on_the_way() {
        let mut rig = rig();
        rig.write(20);
        rig.ship();
        assert_eq!(rig.mirrored(), rig.written);
        // The answer to a batch is lost with the connection: it is not sent twice.
        rig.write(20);
        let next = rig.stream.next(Instant::now());
        assert!(matches!(next, Next::Batch { .. }));
        rig.coordinator(next);
        rig.stream.disconnected();
        rig.ship();
        assert_eq!(rig.mirrored(), rig.written);
        // The batch itself is lost.
        rig.write(20);
        assert!(matches!(
            rig.stream.next(Instant::now()),
            Next::Batch { .. }
        ));
        rig.stream.disconnected();
        rig.ship();
        assert_eq!(rig.mirrored(), rig.written);
        rig.stream.ended();
        rig.ship();
        assert!(rig.stream.is_complete());
        assert_eq!(segments(&rig.stream.logs()).unwrap().len(), KEPT);
    }

    #[test]
    fn a_refusal_is_retried_where_the_coordinator_is_and_not_at_once() {
        let mut rig = rig();
        rig.write(5);
        let now = Instant::now();
        assert_eq!(rig.stream.next(now), Next::Probe);
        rig.stream.answered(
            Answer {
                durable: 0,
                refused: false,
                unwanted: false,
            },
            now,
        );
        assert!(matches!(rig.stream.next(now), Next::Batch { .. }));
        rig.stream.answered(
            Answer {
                durable: 0,
                refused: true,
                unwanted: false,
            },
            now,
        );
        assert_eq!(rig.stream.next(now), Next::Wait);
        assert!(rig.stream.paused_until().is_some());
        rig.ship();
        assert_eq!(rig.mirrored(), rig.written);
    }

    #[test]
    fn a_coordinator_that_has_more_than_a_cut_node_is_content() {
        let mut rig = rig();
        rig.write(5);
        rig.stream.ended();
        let now = Instant::now();
        assert_eq!(rig.stream.next(now), Next::Probe);
        rig.stream.answered(
            Answer {
                durable: 5000,
                refused: false,
                unwanted: false,
            },
            now,
        );
        assert_eq!(rig.stream.next(now), Next::Complete);
    }

    #[test]
    fn a_coordinator_that_lost_what_was_shipped_is_told_of_the_hole() {
        let mut rig = rig();
        rig.write(60);
        rig.ship();
        // A restore: the coordinator begins at nothing, and the first segments are deleted here.
        let end = rig.writer.end();
        rig.stream.ended();
        rig.stream.disconnected();
        rig.stream.delete_up_to(end);
        let now = Instant::now();
        assert_eq!(rig.stream.next(now), Next::Probe);
        rig.stream.answered(
            Answer {
                durable: 0,
                refused: false,
                unwanted: false,
            },
            now,
        );
        let first = rig.stream.next(now);
        let Next::Batch {
            offset,
            bytes,
            hole: true,
        } = first
        else {
            panic!("{first:?}")
        };
        rig.mirror = Mirror::open(&rig._dir.path().join("restored"), 1 << 20).unwrap();
        rig.mirror.skip_to(offset).unwrap();
        let durable = rig.mirror.append_at(offset, &bytes).unwrap();
        rig.stream.answered(
            Answer {
                durable,
                refused: false,
                unwanted: false,
            },
            now,
        );
        rig.ship();
        assert!(rig.stream.is_complete());
        assert_eq!(rig.mirror.durable(), end);
    }

    #[test]
    fn what_is_unwanted_is_deleted_and_not_sent() {
        let mut rig = rig();
        rig.write(60);
        let now = Instant::now();
        assert_eq!(rig.stream.next(now), Next::Probe);
        rig.stream.answered(
            Answer {
                durable: 0,
                refused: false,
                unwanted: true,
            },
            now,
        );
        assert_eq!(rig.stream.next(now), Next::Wait);
        assert_eq!(segments(&rig.stream.logs()).unwrap().len(), KEPT);
        rig.stream.ended();
        assert_eq!(rig.stream.next(now), Next::Complete);
    }
}
