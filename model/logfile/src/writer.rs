//! The writing side: appends frames in batches, rotates by size, keeps within a budget on disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::LogError;
use crate::frame::{Frame, Frames, GAP};
use crate::segment::{self, path_of, recover};

/// Bytes after which [`SegmentWriter::wants_flush`] asks for a flush. A segment exceeds its size by at most
/// one batch (and one frame).
const BATCH: usize = 32 * 1024;

/// Limits of a log on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriterLimits {
    /// Size in bytes at which a segment is closed and the next begun.
    pub segment_bytes: u64,
    /// Most bytes on disk; the agent makes room by deleting what it has shipped.
    pub budget_bytes: u64,
}

/// A frame was not taken, because the log has used up its budget on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the log has used up its budget on disk")]
pub struct Refused;

/// A flush failed (such as a full disk). The frames in `frames` were taken before and are lost: the
/// caller counts them as a gap. The log itself is whole, and its offsets go on as if they had never been.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the log; {} bytes of it are lost", frames.len())]
pub struct Lost {
    /// The lost frames, encoded: [`Frames`] reads them.
    pub frames: Vec<u8>,
    /// The system's error.
    pub source: io::Error,
}

/// Appends frames to the segments of one folder, of which it is the only writer.
#[derive(Debug)]
pub struct SegmentWriter {
    dir: PathBuf,
    limits: WriterLimits,
    /// Frames that each segment begins with, encoded.
    preamble: Vec<u8>,
    buffer: Vec<u8>,
    file: Option<File>,
    /// Offset at which the current segment begins.
    base: u64,
    /// Offset just behind what is in files.
    written: u64,
    /// Bytes in segments that were on disk when last looked.
    used: u64,
}

impl SegmentWriter {
    /// Opens a folder (made if need be) and goes on behind its last valid frame.
    ///
    /// Segments are made no larger than a quarter of the budget: only closed ones can be deleted to
    /// make room.
    pub fn open(dir: &Path, mut limits: WriterLimits) -> Result<Self, LogError> {
        limits.segment_bytes = limits.segment_bytes.min(limits.budget_bytes / 4);
        fs::create_dir_all(dir).map_err(LogError::io("make", dir))?;
        let recovered = recover(dir)?;
        let used = recovered.segments.iter().map(|segment| segment.len).sum();
        let mut writer = Self {
            dir: dir.to_owned(),
            limits,
            preamble: Vec::new(),
            buffer: Vec::new(),
            file: None,
            base: recovered.end,
            written: recovered.end,
            used,
        };
        if let Some(last) = recovered.segments.last() {
            let file = OpenOptions::new()
                .append(true)
                .open(&last.path)
                .map_err(LogError::io("open", &last.path))?;
            writer.file = Some(file);
            writer.base = last.base;
        }
        Ok(writer)
    }

    /// Adds a frame (a process's name) to those that each segment begins with, from the next on.
    pub fn add_preamble(&mut self, frame: &Frame<'_>) {
        frame.encode(&mut self.preamble);
    }

    /// Takes a frame into the current batch and tells its offset. Does no I/O. A gap is taken whatever the
    /// budget: it is what says that the budget was used up.
    pub fn append(&mut self, frame: &Frame<'_>) -> Result<u64, Refused> {
        let empty = self.file.is_none() || self.written == self.base;
        let begins = self.buffer.is_empty() && empty;
        let preamble = if begins { self.preamble.len() } else { 0 };
        let more = (preamble + frame.encoded_len()) as u64;
        let gap = frame.flags & GAP != 0;
        if !gap && self.used + self.buffer.len() as u64 + more > self.limits.budget_bytes {
            return Err(Refused);
        }
        if begins {
            self.buffer.extend_from_slice(&self.preamble);
        }
        let offset = self.end();
        frame.encode(&mut self.buffer);
        Ok(offset)
    }

    /// Bytes that the budget has room for, as far as known.
    pub fn room(&self) -> u64 {
        self.limits
            .budget_bytes
            .saturating_sub(self.used + self.buffer.len() as u64)
    }

    /// Whether the batch is big enough to be written.
    pub fn wants_flush(&self) -> bool {
        self.buffer.len() >= BATCH
    }

    /// Offset just behind all frames taken.
    pub fn end(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Writes the batch to the current segment, and closes that if it is full.
    pub fn flush(&mut self) -> Result<(), Lost> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let result = self.write_batch();
        let (kept, result) = match result {
            Ok(()) => (self.buffer.len(), Ok(())),
            Err((kept, source)) => {
                let frames = self.buffer[kept..].to_vec();
                (kept, Err(Lost { frames, source }))
            }
        };
        self.buffer.clear();
        self.written += kept as u64;
        self.used += kept as u64;
        if self.written - self.base >= self.limits.segment_bytes {
            self.file = None;
        }
        result
    }

    /// Writes the batch. On error tells how many of its bytes, whole frames, are in the file.
    fn write_batch(&mut self) -> Result<(), (usize, io::Error)> {
        if self.file.is_none() {
            let path = path_of(&self.dir, self.written);
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)
                .map_err(|error| (0, error))?;
            // Only what could not be cut off after a failed write can be in it.
            file.set_len(0).map_err(|error| (0, error))?;
            self.base = self.written;
            self.file = Some(file);
        }
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let mut done = 0;
        while done < self.buffer.len() {
            match file.write(&self.buffer[done..]) {
                Ok(0) => return Err((0, io::ErrorKind::WriteZero.into())),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let (whole, _) = Frames::new(&self.buffer[..done]).check();
                    let length = self.written - self.base + whole as u64;
                    if file.set_len(length).is_err() {
                        // A torn frame stays: readers pass it over as long as nothing follows it, so
                        // nothing may. The next segment begins at the same offset as it.
                        self.file = None;
                    }
                    return Err((whole, error));
                }
            }
        }
        Ok(())
    }

    /// Looks how much is on disk now: what the agent has deleted makes room. To be called now and then
    /// while frames are refused.
    pub fn refresh(&mut self) -> Result<(), LogError> {
        self.used = segment::segments(&self.dir)?
            .iter()
            .map(|segment| segment.len)
            .sum();
        Ok(())
    }

    /// Gives back the batch's memory. For a log that has become quiet.
    pub fn shrink(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{PROCESS_NAME, Stream};
    use crate::segment::segments;

    fn line(payload: &[u8]) -> Frame<'_> {
        Frame {
            time: 5,
            stream: Stream::Stdout,
            process: 0,
            flags: 0,
            payload,
        }
    }

    fn lines_in(dir: &Path) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        for segment in segments(dir).unwrap() {
            let bytes = fs::read(segment.path).unwrap();
            for frame in Frames::new(&bytes) {
                let frame = frame.unwrap().1;
                if frame.is_line() {
                    lines.push(frame.payload.to_vec());
                }
            }
        }
        lines
    }

    #[test]
    fn segments_follow_each_other_and_begin_with_the_names() {
        let dir = tempfile::tempdir().unwrap();
        let limits = WriterLimits {
            segment_bytes: 100,
            budget_bytes: 1 << 20,
        };
        let mut writer = SegmentWriter::open(dir.path(), limits).unwrap();
        writer.add_preamble(&Frame {
            flags: PROCESS_NAME,
            ..line(b"module")
        });
        let written: Vec<Vec<u8>> = (0..20).map(|i| vec![b'a' + i; 30]).collect();
        for payload in &written {
            writer.append(&line(payload)).unwrap();
            writer.flush().unwrap();
        }
        let found = segments(dir.path()).unwrap();
        assert!(found.len() > 3);
        for pair in found.windows(2) {
            assert_eq!(pair[0].end(), pair[1].base);
        }
        for segment in &found {
            let bytes = fs::read(&segment.path).unwrap();
            assert_eq!(
                Frame::decode(&bytes).unwrap().0.process_name(),
                Some(&b"module"[..])
            );
        }
        assert_eq!(found.last().unwrap().end(), writer.end());
        assert_eq!(lines_in(dir.path()), written);
    }

    #[test]
    fn the_budget_holds_until_somebody_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let limits = WriterLimits {
            segment_bytes: 1000,
            budget_bytes: 2000,
        };
        let mut writer = SegmentWriter::open(dir.path(), limits).unwrap();
        let mut taken = 0;
        while writer.append(&line(&[b'x'; 80])).is_ok() {
            writer.flush().unwrap();
            taken += 1;
        }
        assert_eq!(taken, 20);
        let payload = crate::frame::Gap {
            lines: 1,
            bytes: 80,
        }
        .to_payload();
        writer
            .append(&Frame {
                flags: GAP,
                ..line(&payload)
            })
            .unwrap();
        writer.flush().unwrap();
        writer.refresh().unwrap();
        assert!(writer.append(&line(&[b'x'; 80])).is_err());
        fs::remove_file(&segments(dir.path()).unwrap()[0].path).unwrap();
        writer.refresh().unwrap();
        assert!(writer.append(&line(&[b'x'; 80])).is_ok());
    }

    #[test]
    fn writing_goes_on_behind_a_torn_tail() {
        let dir = tempfile::tempdir().unwrap();
        let limits = WriterLimits {
            segment_bytes: 1000,
            budget_bytes: 1 << 20,
        };
        let mut writer = SegmentWriter::open(dir.path(), limits).unwrap();
        writer.append(&line(b"one")).unwrap();
        writer.flush().unwrap();
        let end = writer.end();
        let path = path_of(dir.path(), 0);
        let mut torn = fs::read(&path).unwrap();
        torn.extend_from_slice(&[9; 7]);
        fs::write(&path, torn).unwrap();
        let mut writer = SegmentWriter::open(dir.path(), limits).unwrap();
        assert_eq!(writer.append(&line(b"two")), Ok(end));
        writer.flush().unwrap();
        assert_eq!(lines_in(dir.path()), [b"one".to_vec(), b"two".to_vec()]);
    }

    #[test]
    fn a_failed_write_hands_back_what_was_lost() {
        let dir = tempfile::tempdir().unwrap();
        let limits = WriterLimits {
            segment_bytes: 1000,
            budget_bytes: 1 << 20,
        };
        let mut writer = SegmentWriter::open(dir.path(), limits).unwrap();
        fs::remove_dir_all(dir.path()).unwrap();
        writer.append(&line(b"one")).unwrap();
        writer.append(&line(b"two")).unwrap();
        let lost = writer.flush().unwrap_err();
        let frames: Vec<_> = Frames::new(&lost.frames)
            .map(|f| f.unwrap().1.payload)
            .collect();
        assert_eq!(frames, [b"one", b"two"]);
        assert_eq!(writer.end(), 0);
        fs::create_dir_all(dir.path()).unwrap();
        writer.append(&line(b"three")).unwrap();
        writer.flush().unwrap();
        assert_eq!(lines_in(dir.path()), [b"three"]);
    }
}
