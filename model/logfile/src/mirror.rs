//! The coordinator's copy: takes the very same bytes, only at its own length, and syncs them.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::LogError;
use crate::frame::Frames;
use crate::segment::{path_of, recover};

/// Why a mirror did not take bytes. Its content is as it was.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// The bytes do not begin where the mirror ends: ship from `length` on.
    #[error("bytes of offset {offset} were sent to a log of length {length}")]
    WrongOffset {
        /// The offset that was sent.
        offset: u64,
        /// The mirror's length.
        length: u64,
    },
    /// The bytes are not whole, valid frames.
    #[error("no valid frame at offset {offset} of the log")]
    BadFrame {
        /// Offset in the stream of what is no frame.
        offset: u64,
    },
    /// The copy on disk cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// A durable copy of one (instance, start, boot)'s log.
///
/// After an I/O error it must be dropped and opened anew: what is on disk is uncertain until
/// [`Mirror::open`] has looked, and every call until then fails.
#[derive(Debug)]
pub struct Mirror {
    dir: PathBuf,
    segment_bytes: u64,
    file: Option<File>,
    base: u64,
    length: u64,
    durable: u64,
    failed: bool,
}

impl Mirror {
    /// Opens a folder (made if need be), cuts off a torn tail, and syncs: all that it then holds is
    /// durable. Segments are closed once they exceed `segment_bytes`.
    pub fn open(dir: &Path, segment_bytes: u64) -> Result<Self, LogError> {
        fs::create_dir_all(dir).map_err(LogError::io("make", dir))?;
        let recovered = recover(dir)?;
        let mut mirror = Self {
            dir: dir.to_owned(),
            segment_bytes,
            file: None,
            base: recovered.end,
            length: recovered.end,
            durable: recovered.end,
            failed: false,
        };
        if let Some(last) = recovered.segments.last() {
            let file = OpenOptions::new()
                .append(true)
                .open(&last.path)
                .map_err(LogError::io("open", &last.path))?;
            file.sync_all().map_err(LogError::io("sync", &last.path))?;
            mirror.file = Some(file);
            mirror.base = last.base;
        }
        mirror.sync_dir()?;
        Ok(mirror)
    }

    /// Offset just behind what was taken; some of it perhaps not durable yet.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Offset just behind what survives a power cut: what may be acknowledged.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Takes whole frames at `offset`, which must be [`Mirror::length`]. Not durable until
    /// [`Mirror::sync`], so that one sync can serve many appends.
    pub fn append(&mut self, offset: u64, bytes: &[u8]) -> Result<(), MirrorError> {
        self.usable()?;
        if offset != self.length {
            return Err(MirrorError::WrongOffset {
                offset,
                length: self.length,
            });
        }
        if let (valid, Some(_)) = Frames::new(bytes).check() {
            return Err(MirrorError::BadFrame {
                offset: offset + valid as u64,
            });
        }
        if bytes.is_empty() {
            return Ok(());
        }
        if self.file.is_some() && self.length - self.base >= self.segment_bytes {
            // What precedes the last segment must be durable, as recovery looks only at the last.
            self.sync()?;
            self.file = None;
        }
        self.write(bytes).inspect_err(|_| self.failed = true)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), LogError> {
        let path = path_of(
            &self.dir,
            if self.file.is_some() {
                self.base
            } else {
                self.length
            },
        );
        if self.file.is_none() {
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .open(&path)
                .map_err(LogError::io("make", &path))?;
            self.sync_dir()?;
            self.base = self.length;
            self.file = Some(file);
        }
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        file.write_all(bytes).map_err(LogError::io("write", &path))
    }

    /// Makes durable what was taken, and tells the durable length.
    pub fn sync(&mut self) -> Result<u64, LogError> {
        self.usable()?;
        if self.durable < self.length
            && let Some(file) = &self.file
        {
            let path = path_of(&self.dir, self.base);
            let synced = file.sync_data().map_err(LogError::io("sync", &path));
            // After a failed sync the kernel may have dropped the pages: never ask it again.
            synced.inspect_err(|_| self.failed = true)?;
        }
        self.durable = self.length;
        Ok(self.durable)
    }

    /// [`Mirror::append`] and [`Mirror::sync`]: returns the durable length.
    pub fn append_at(&mut self, offset: u64, bytes: &[u8]) -> Result<u64, MirrorError> {
        self.append(offset, bytes)?;
        Ok(self.sync()?)
    }

    /// Goes on at a later offset, where the bytes between are lost for good (such as after a restore
    /// from a backup that is older than what was shipped and deleted). Readers are told of the hole.
    pub fn skip_to(&mut self, offset: u64) -> Result<(), MirrorError> {
        if offset < self.length {
            return Err(MirrorError::WrongOffset {
                offset,
                length: self.length,
            });
        }
        self.sync()?;
        if offset > self.length {
            self.file = None;
            self.base = offset;
            self.length = offset;
            self.durable = offset;
        }
        Ok(())
    }

    fn usable(&self) -> Result<(), LogError> {
        if self.failed {
            let source = std::io::Error::other("an earlier write or sync failed; open it anew");
            return Err(LogError::io("use", &self.dir)(source));
        }
        Ok(())
    }

    fn sync_dir(&self) -> Result<(), LogError> {
        let dir = File::open(&self.dir).map_err(LogError::io("open", &self.dir))?;
        dir.sync_all().map_err(LogError::io("sync", &self.dir))
    }
}

/// [`Mirror::open`] and [`Mirror::append_at`] in one, for callers that append rarely: returns the
/// durable length.
pub fn append_at(
    dir: &Path,
    segment_bytes: u64,
    offset: u64,
    bytes: &[u8],
) -> Result<u64, MirrorError> {
    Mirror::open(dir, segment_bytes)?.append_at(offset, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Frame, Stream};
    use crate::segment::segments;
    use crate::tail::{Tail, TailReader};

    fn frames(count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for i in 0..count {
            let payload = format!("line {i}");
            Frame {
                time: 5,
                stream: Stream::Stdout,
                process: 0,
                flags: 0,
                payload: payload.as_bytes(),
            }
            .encode(&mut bytes);
        }
        bytes
    }

    #[test]
    fn only_bytes_at_its_length_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = frames(2);
        let half = bytes.len() as u64;
        let mut mirror = Mirror::open(dir.path(), 1 << 20).unwrap();
        assert_eq!(mirror.append_at(0, &bytes).unwrap(), half);
        for offset in [0, half - 1, half + 1] {
            let refused = mirror.append_at(offset, &bytes).unwrap_err();
            assert!(matches!(refused, MirrorError::WrongOffset { length, .. } if length == half));
        }
        assert_eq!(
            append_at(dir.path(), 1 << 20, half, &bytes).unwrap(),
            2 * half
        );
    }

    #[test]
    fn bytes_that_are_no_frames_are_refused_whole() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = frames(3);
        let mut mirror = Mirror::open(dir.path(), 1 << 20).unwrap();
        let torn = &bytes[..bytes.len() - 1];
        assert!(matches!(
            mirror.append_at(0, torn),
            Err(MirrorError::BadFrame { offset: 52 })
        ));
        assert_eq!(mirror.length(), 0);
        assert_eq!(mirror.append_at(0, &bytes).unwrap(), bytes.len() as u64);
    }

    #[test]
    fn it_rotates_at_the_borders_of_what_it_takes_and_reads_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = frames(2);
        let mut mirror = Mirror::open(dir.path(), 100).unwrap();
        for _ in 0..10 {
            mirror.append(mirror.length(), &bytes).unwrap();
        }
        mirror.sync().unwrap();
        assert!(segments(dir.path()).unwrap().len() >= 4);
        let mut tail = TailReader::new(dir.path(), 0);
        let mut all = Vec::new();
        while let Tail::Frames { bytes, .. } = tail.read(1).unwrap() {
            all.extend(bytes);
        }
        assert_eq!(all, bytes.repeat(10));
        assert_eq!(
            Mirror::open(dir.path(), 100).unwrap().durable(),
            mirror.length()
        );
    }

    #[test]
    fn a_hole_is_told_to_readers() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = frames(1);
        let mut mirror = Mirror::open(dir.path(), 100).unwrap();
        mirror.append_at(0, &bytes).unwrap();
        mirror.skip_to(1000).unwrap();
        assert_eq!(
            mirror.append_at(1000, &bytes).unwrap(),
            1000 + bytes.len() as u64
        );
        let mut tail = TailReader::new(dir.path(), 0);
        assert!(matches!(
            tail.read(1).unwrap(),
            Tail::Frames { offset: 0, .. }
        ));
        assert_eq!(tail.read(1).unwrap(), Tail::Missing { next: 1000 });
        assert!(mirror.skip_to(5).is_err());
    }
}
