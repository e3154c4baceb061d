//! The reading side: whole frames from any offset, across segments, beside a living writer.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::LogError;
use crate::frame::{Frame, FrameError, HEADER_LEN, MAX_PAYLOAD};
use crate::segment::{read_some, segments};

/// How often bytes that are no frame are read again before they are called damage: a writer that
/// repairs its tail after a full disk may be seen in the middle of it.
const LOOKS: u32 = 3;

/// What a [`TailReader`] has to give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tail {
    /// Whole, valid frames: the stream's bytes from the reader's offset on.
    Frames {
        /// Offset in the stream of the first byte.
        offset: u64,
        /// The bytes; [`crate::Frames`] reads them.
        bytes: Vec<u8>,
    },
    /// Nothing behind the reader's offset yet. If the writer is gone, it is the end.
    NothingNew,
    /// The bytes at the reader's offset are not there any more (deleted); `seek` to `next`.
    Missing {
        /// Offset of the oldest frame behind the reader's offset.
        next: u64,
    },
}

/// Reads a log from an offset. Never waits: when to look again is the caller's to decide.
#[derive(Debug)]
pub struct TailReader {
    dir: PathBuf,
    offset: u64,
    /// The segment in which the offset lies, if it was found already.
    current: Option<(u64, PathBuf, File)>,
}

impl TailReader {
    /// A reader of the log in `dir`, from a frame's border on. Does no I/O.
    pub fn new(dir: &Path, offset: u64) -> Self {
        Self {
            dir: dir.to_owned(),
            offset,
            current: None,
        }
    }

    /// Offset of the next frame to be read.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Goes to another frame's border.
    pub fn seek(&mut self, offset: u64) {
        self.offset = offset;
        self.current = None;
    }

    /// Reads whole frames, up to about `max_bytes` (one frame is read however long it is), and steps
    /// behind them. Errors: the folder cannot be read, or is damaged at the reader's offset.
    pub fn read(&mut self, max_bytes: usize) -> Result<Tail, LogError> {
        let max_bytes = max_bytes.max(HEADER_LEN + MAX_PAYLOAD);
        let mut looks = 0;
        loop {
            if self.current.is_none()
                && let Some(answer) = self.find()?
            {
                return Ok(answer);
            }
            let Some((base, path, file)) = &mut self.current else {
                return Ok(Tail::NothingNew);
            };
            let (base, at) = (*base, self.offset - *base);
            let (bytes, state) =
                read_frames(file, at, max_bytes).map_err(LogError::io("read", path))?;
            if !bytes.is_empty() {
                let offset = self.offset;
                self.offset += bytes.len() as u64;
                return Ok(Tail::Frames { offset, bytes });
            }
            let next = segments(&self.dir)?
                .into_iter()
                .find(|segment| segment.base >= self.offset && segment.base > base);
            // Between the read and the listing the writer may have filled this segment up.
            let grown = file
                .metadata()
                .map_err(LogError::io("look at", path))?
                .len()
                > at;
            match (next, state) {
                (Some(segment), _) if segment.base == self.offset => self.current = None,
                (Some(_), State::End) if grown => {}
                (Some(segment), State::End) => return Ok(Tail::Missing { next: segment.base }),
                (None, State::End | State::Torn) => return Ok(Tail::NothingNew),
                (Some(_), State::Torn) | (_, State::Damaged) => {
                    looks += 1;
                    if looks == LOOKS {
                        let path = path.clone();
                        return Err(LogError::Damaged {
                            path,
                            offset: self.offset,
                        });
                    }
                    self.current = None;
                }
            }
        }
    }

    /// Opens the segment in which the offset lies, or tells why there is none.
    fn find(&mut self) -> Result<Option<Tail>, LogError> {
        // Again if the segment is deleted between listing and opening.
        for _ in 0..LOOKS {
            let list = segments(&self.dir)?;
            let Some(segment) = list
                .iter()
                .rev()
                .find(|segment| segment.base <= self.offset)
            else {
                return Ok(Some(match list.first() {
                    Some(first) => Tail::Missing { next: first.base },
                    None => Tail::NothingNew,
                }));
            };
            match File::open(&segment.path) {
                Ok(file) => {
                    self.current = Some((segment.base, segment.path.clone(), file));
                    return Ok(None);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(LogError::io("open", &segment.path)(error)),
            }
        }
        Ok(Some(Tail::NothingNew))
    }
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    End,
    Torn,
    Damaged,
}

/// The whole frames at an offset of a file, and what follows them.
fn read_frames(file: &mut File, at: u64, max: usize) -> io::Result<(Vec<u8>, State)> {
    let there = file.metadata()?.len().saturating_sub(at);
    let mut bytes = vec![0; usize::try_from(there).unwrap_or(max).min(max)];
    file.seek(SeekFrom::Start(at))?;
    let read = read_some(file, &mut bytes)?;
    bytes.truncate(read);
    let mut used = 0;
    let state = loop {
        if used == bytes.len() {
            break State::End;
        }
        match Frame::decode(&bytes[used..]) {
            Ok((_, length)) => used += length,
            Err(FrameError::Incomplete) => break State::Torn,
            Err(FrameError::Damaged) => break State::Damaged,
        }
    };
    bytes.truncate(used);
    Ok((bytes, state))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::frame::{Frames, Stream};
    use crate::segment::path_of;
    use crate::writer::{SegmentWriter, WriterLimits};

    fn line(payload: &[u8]) -> Frame<'_> {
        Frame {
            time: 5,
            stream: Stream::Stdout,
            process: 0,
            flags: 0,
            payload,
        }
    }

    fn payloads(tail: &Tail) -> Vec<String> {
        let Tail::Frames { bytes, .. } = tail else {
            panic!("no frames but {tail:?}")
        };
        Frames::new(bytes)
            .map(|frame| String::from_utf8(frame.unwrap().1.payload.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn a_tail_follows_a_writer_across_segments() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        let mut tail = TailReader::new(&logs, 0);
        assert_eq!(tail.read(100).unwrap(), Tail::NothingNew);
        let limits = WriterLimits {
            segment_bytes: 50,
            budget_bytes: 1 << 20,
        };
        let mut writer = SegmentWriter::open(&logs, limits).unwrap();
        for i in 0..30 {
            let text = format!("line {i}");
            writer.append(&line(text.as_bytes())).unwrap();
            writer.flush().unwrap();
            assert_eq!(payloads(&tail.read(1).unwrap()), [text]);
            assert_eq!(tail.read(1).unwrap(), Tail::NothingNew);
        }
        assert_eq!(tail.offset(), writer.end());
    }

    #[test]
    fn a_reader_beside_a_busy_writer_misses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let limits = WriterLimits {
            segment_bytes: 90,
            budget_bytes: 1 << 20,
        };
        let mut writer = SegmentWriter::open(dir.path(), limits).unwrap();
        let mut tail = TailReader::new(dir.path(), 0);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for i in 0..1000 {
                    writer.append(&line(format!("{i}").as_bytes())).unwrap();
                    writer.flush().unwrap();
                }
            });
            let mut seen = Vec::new();
            while seen.len() < 1000 {
                match tail.read(1).unwrap() {
                    Tail::NothingNew => std::thread::yield_now(),
                    frames => seen.extend(payloads(&frames)),
                }
            }
            let expected: Vec<String> = (0..1000).map(|i| format!("{i}")).collect();
            assert_eq!(seen, expected);
        });
    }

    #[test]
    fn deleted_segments_are_told_and_not_invented() {
        let dir = tempfile::tempdir().unwrap();
        let limits = WriterLimits {
            segment_bytes: 20,
            budget_bytes: 1 << 20,
        };
        let mut writer = SegmentWriter::open(dir.path(), limits).unwrap();
        for _ in 0..4 {
            writer.append(&line(b"x")).unwrap();
            writer.flush().unwrap();
        }
        let mut tail = TailReader::new(dir.path(), 0);
        assert_eq!(payloads(&tail.read(1).unwrap()), ["x"]);
        fs::remove_file(path_of(dir.path(), 0)).unwrap();
        fs::remove_file(path_of(dir.path(), 21)).unwrap();
        assert_eq!(tail.read(1).unwrap(), Tail::Missing { next: 42 });
        tail.seek(42);
        assert_eq!(payloads(&tail.read(1).unwrap()), ["x"]);
        assert_eq!(
            TailReader::new(dir.path(), 0).read(1).unwrap(),
            Tail::Missing { next: 42 }
        );
    }

    #[test]
    fn a_torn_tail_is_waited_for_and_damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut frame = Vec::new();
        line(b"whole").encode(&mut frame);
        let path = path_of(dir.path(), 0);
        let mut tail = TailReader::new(dir.path(), 0);
        fs::write(&path, &frame[..20]).unwrap();
        assert_eq!(tail.read(1).unwrap(), Tail::NothingNew);
        fs::write(&path, &frame).unwrap();
        assert_eq!(payloads(&tail.read(1).unwrap()), ["whole"]);
        let mut damaged = frame.clone();
        damaged[22] ^= 1;
        fs::write(&path, [frame, damaged].concat()).unwrap();
        assert!(matches!(
            tail.read(1),
            Err(LogError::Damaged { offset: 25, .. })
        ));
    }
}
