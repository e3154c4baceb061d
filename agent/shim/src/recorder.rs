//! Lines into log segments; what cannot be kept becomes a counted gap. Never blocks a process.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use berth_logfile::{
    Frame, Frames, GAP, Gap, HEADER_LEN, Lost, PARTIAL, PROCESS_NAME, SegmentWriter, Stream,
    WriterLimits,
};
use berth_shim::spec::Spec;

use crate::output::Sink;

/// How long lines are only counted before it is tried again to keep them.
const PAUSE: Duration = Duration::from_millis(50);

/// A file of one block that is given up at the end, so that a full disk still takes the last gap.
const RESERVE: &str = "reserve";

/// Bytes of standard error that are kept for the final state.
const TAIL: usize = 2048;

/// Lines dropped of one stream of one process, not yet told.
#[derive(Debug)]
struct Dropped {
    process: u8,
    stream: Stream,
    gap: Gap,
}

/// Keeps the log of a start within its limits.
#[derive(Debug)]
pub(crate) struct Recorder {
    dir: PathBuf,
    limits: WriterLimits,
    names: Vec<String>,
    writer: Option<SegmentWriter>,
    dropped: Vec<Dropped>,
    /// Lines are only counted until then.
    paused: Option<Instant>,
    tail: Vec<u8>,
    time: u64,
}

fn unix_nanos() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl Recorder {
    /// A recorder into the folder `dir`. If that cannot be made now, lines are counted until it can.
    pub(crate) fn new(dir: &Path, spec: &Spec) -> Self {
        let limits = WriterLimits {
            segment_bytes: spec.log.segment_bytes,
            budget_bytes: spec.log.budget_bytes,
        };
        let mut recorder = Self {
            dir: dir.to_owned(),
            limits,
            names: spec
                .processes
                .iter()
                .map(|process| process.name.clone())
                .collect(),
            writer: None,
            dropped: Vec::new(),
            paused: None,
            tail: Vec::new(),
            time: unix_nanos(),
        };
        recorder.open();
        recorder
    }

    fn open(&mut self) {
        let Ok(mut writer) = SegmentWriter::open(&self.dir, self.limits) else {
            self.paused = Some(Instant::now() + PAUSE);
            return;
        };
        for (process, name) in (0..).zip(&self.names) {
            writer.add_preamble(&Frame {
                time: self.time,
                stream: Stream::Shim,
                process,
                flags: PROCESS_NAME,
                payload: name.as_bytes(),
            });
        }
        self.writer = Some(writer);
        // Without it only the count of what a full disk has dropped is at risk.
        let _ = std::fs::write(self.dir.join(RESERVE), [0; 4096]);
    }

    /// Sets the time of the lines that follow.
    pub(crate) fn tick(&mut self) {
        self.time = unix_nanos();
        if self.paused.is_some_and(|until| Instant::now() >= until) {
            self.resume();
        }
    }

    /// When [`Recorder::tick`] is due, lines or no lines: a gap must be told although nothing follows.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.paused
    }

    /// Tries to keep lines again, if there is room for more than a few.
    fn resume(&mut self) {
        self.paused = Some(Instant::now() + PAUSE);
        if self.writer.is_none() {
            self.open();
        }
        let Some(writer) = &mut self.writer else {
            return;
        };
        if writer.refresh().is_ok() && writer.room() >= self.limits.budget_bytes / 8 {
            self.paused = None;
            self.tell_gaps();
            self.flush();
        }
    }

    fn drop_line(&mut self, process: u8, stream: Stream, lines: u64, bytes: u64) {
        let known = |dropped: &&mut Dropped| dropped.process == process && dropped.stream == stream;
        let dropped = match self.dropped.iter_mut().find(known) {
            Some(dropped) => dropped,
            None => {
                self.dropped.push(Dropped {
                    process,
                    stream,
                    gap: Gap::default(),
                });
                match self.dropped.last_mut() {
                    Some(dropped) => dropped,
                    None => return,
                }
            }
        };
        dropped.gap.lines += lines;
        dropped.gap.bytes += bytes;
    }

    /// Writes a gap frame for all that was dropped.
    fn tell_gaps(&mut self) {
        let Some(writer) = &mut self.writer else {
            return;
        };
        for Dropped {
            process,
            stream,
            gap,
        } in self.dropped.drain(..)
        {
            let payload = gap.to_payload();
            let time = self.time;
            // Gaps are taken whatever the budget.
            let _ = writer.append(&Frame {
                time,
                stream,
                process,
                flags: GAP,
                payload: &payload,
            });
        }
    }

    /// Writes what was taken.
    pub(crate) fn flush(&mut self) {
        let Some(writer) = &mut self.writer else {
            return;
        };
        let Err(Lost { frames, .. }) = writer.flush() else {
            return;
        };
        self.paused = Some(Instant::now() + PAUSE);
        for (_, frame) in Frames::new(&frames).map_while(Result::ok) {
            if let Some(gap) = frame.gap() {
                self.drop_line(frame.process, frame.stream, gap.lines, gap.bytes);
            } else if frame.is_line() {
                let lines = u64::from(!frame.is_partial());
                self.drop_line(
                    frame.process,
                    frame.stream,
                    lines,
                    frame.payload.len() as u64,
                );
            }
        }
    }

    /// Flushes, and gives memory back: nothing is being written just now.
    pub(crate) fn rest(&mut self) {
        self.flush();
        if let Some(writer) = &mut self.writer {
            writer.shrink();
        }
    }

    /// Writes the last gaps. False if the disk does not take them yet.
    pub(crate) fn finish(&mut self) -> bool {
        self.tick();
        if self.writer.is_none() {
            self.open();
        }
        let _ = std::fs::remove_file(self.dir.join(RESERVE));
        self.tell_gaps();
        self.flush();
        self.dropped.is_empty()
    }

    /// The end of what was written to standard error: whole lines, as far as there are any.
    pub(crate) fn stderr_tail(&self) -> Option<String> {
        let mut tail = self.tail.as_slice();
        if tail.len() >= TAIL
            && let Some(newline) = tail.iter().position(|byte| *byte == b'\n')
            && newline + 1 < tail.len()
        {
            tail = &tail[newline + 1..];
        }
        (!tail.is_empty()).then(|| String::from_utf8_lossy(tail).into_owned())
    }
}

impl Sink for Recorder {
    fn line(&mut self, process: u8, stream: Stream, partial: bool, line: &[u8]) {
        let lines = u64::from(!partial);
        let need = (2 * HEADER_LEN + line.len() + 16) as u64;
        let room = self.writer.as_ref().map_or(0, SegmentWriter::room);
        if self.paused.is_none() && room < need {
            // The agent may have made room since it was last looked.
            self.resume();
        }
        if self.paused.is_some() {
            self.drop_line(process, stream, lines, line.len() as u64);
            return;
        }
        self.tell_gaps();
        let flags = if partial { PARTIAL } else { 0 };
        let frame = Frame {
            time: self.time,
            stream,
            process,
            flags,
            payload: line,
        };
        let Some(writer) = &mut self.writer else {
            return;
        };
        if writer.append(&frame).is_err() {
            self.drop_line(process, stream, lines, line.len() as u64);
        } else if writer.wants_flush() {
            self.flush();
        }
    }

    fn raw(&mut self, stream: Stream, bytes: &[u8]) {
        if stream != Stream::Stderr {
            return;
        }
        let keep = &bytes[bytes.len().saturating_sub(TAIL)..];
        let over = (self.tail.len() + keep.len()).saturating_sub(TAIL);
        self.tail.drain(..over);
        self.tail.extend_from_slice(keep);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use berth_logfile::{Tail, TailReader, segments};
    use berth_shim::spec::{LogSpec, ProcessSpec};

    use super::*;

    fn spec(budget_bytes: u64) -> Spec {
        let process = ProcessSpec {
            name: "module".into(),
            argv: vec!["true".into()],
            env: BTreeMap::new(),
            cwd: "/".into(),
            primary: true,
        };
        let log = LogSpec {
            segment_bytes: 1 << 20,
            budget_bytes,
        };
        let instance = "a.1.0.1".into();
        Spec {
            version: 1,
            instance,
            start: 1,
            processes: vec![process],
            sandbox: None,
            stop_grace_ms: 0,
            log,
        }
    }

    /// Whole lines, and lines told as gaps.
    fn count(dir: &Path) -> (u64, u64) {
        let mut tail = TailReader::new(dir, 0);
        let (mut lines, mut gaps) = (0, 0);
        loop {
            match tail.read(1 << 20).unwrap() {
                Tail::Frames { bytes, .. } => {
                    for (_, frame) in Frames::new(&bytes).map(Result::unwrap) {
                        lines += u64::from(frame.is_line() && !frame.is_partial());
                        gaps += frame.gap().map_or(0, |gap| gap.lines);
                    }
                }
                Tail::NothingNew => return (lines, gaps),
                Tail::Missing { next } => tail.seek(next),
            }
        }
    }

    #[test]
    fn every_line_is_kept_or_counted() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        let mut recorder = Recorder::new(&logs, &spec(64 << 10));
        for _ in 0..5000 {
            recorder.line(0, Stream::Stdout, false, &[b'x'; 50]);
        }
        assert!(recorder.finish());
        let (lines, gaps) = count(&logs);
        assert!(lines > 500 && gaps > 500);
        assert_eq!(lines + gaps, 5000);
    }

    #[test]
    fn a_full_disk_is_a_gap_that_is_told_when_there_is_room_again() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        let mut recorder = Recorder::new(&logs, &spec(1 << 20));
        recorder.line(0, Stream::Stdout, false, b"kept");
        recorder.flush();
        recorder.writer = None;
        fs::rename(&logs, dir.path().join("away")).unwrap();
        fs::write(&logs, b"in the way").unwrap();
        recorder.line(0, Stream::Stdout, false, b"dropped");
        assert!(!recorder.finish());
        fs::remove_file(&logs).unwrap();
        fs::rename(dir.path().join("away"), &logs).unwrap();
        while recorder.due().is_some() {
            recorder.tick();
        }
        recorder.line(0, Stream::Stdout, false, b"kept too");
        recorder.rest();
        assert_eq!(count(&logs), (2, 1));
        assert_eq!(segments(&logs).unwrap().len(), 1);
    }

    #[test]
    fn the_tail_is_of_whole_lines_of_standard_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::new(dir.path(), &spec(1 << 20));
        assert_eq!(recorder.stderr_tail(), None);
        recorder.raw(Stream::Stdout, b"no\n");
        recorder.raw(Stream::Stderr, b"short \xff");
        assert_eq!(recorder.stderr_tail().unwrap(), "short \u{fffd}");
        for i in 0..1000 {
            recorder.raw(Stream::Stderr, format!("line {i}\n").as_bytes());
        }
        let tail = recorder.stderr_tail().unwrap();
        assert!(tail.starts_with("line ") && tail.ends_with("line 999\n") && tail.len() <= TAIL);
        recorder.raw(Stream::Stderr, &[b'y'; 10_000]);
        assert_eq!(recorder.stderr_tail().unwrap().len(), TAIL);
    }
}
