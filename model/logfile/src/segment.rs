//! Segment files: their names, their order, and how a torn tail is cut off.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::error::LogError;
use crate::frame::{Frame, FrameError, HEADER_LEN, MAX_PAYLOAD};

/// One segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Offset in the stream of its first byte.
    pub base: u64,
    /// Its length in bytes when it was listed.
    pub len: u64,
    /// Where it is.
    pub path: PathBuf,
}

impl Segment {
    /// Offset in the stream just behind its last byte.
    pub fn end(&self) -> u64 {
        self.base + self.len
    }
}

/// Path of the segment that begins at `base`.
pub(crate) fn path_of(dir: &Path, base: u64) -> PathBuf {
    dir.join(format!("{base:020}.log"))
}

fn base_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().ok())
        .flatten()
}

/// The segments in a folder, by base. Other files are passed over; no folder has no segments.
pub fn segments(dir: &Path) -> Result<Vec<Segment>, LogError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(LogError::io("list", dir)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(LogError::io("list", dir))?;
        let Some(base) = entry.file_name().to_str().and_then(base_of) else {
            continue;
        };
        match entry.metadata() {
            Ok(meta) => found.push(Segment {
                base,
                len: meta.len(),
                path: entry.path(),
            }),
            // Deleted between the two calls.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(LogError::io("look at", &entry.path())(error)),
        }
    }
    found.sort_unstable_by_key(|segment| segment.base);
    Ok(found)
}

/// What [`recover`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The segments, by base, after the repair.
    pub segments: Vec<Segment>,
    /// Offset just behind the last valid frame: where the stream goes on.
    pub end: u64,
    /// Bytes of a torn tail that were cut off.
    pub cut: u64,
}

/// Makes a folder fit for going on after a crash: reads the last segment and cuts off what is not a
/// whole, valid frame. Earlier segments were synced before the last was begun, and are not read.
pub fn recover(dir: &Path) -> Result<Recovered, LogError> {
    let mut segments = segments(dir)?;
    let Some(last) = segments.last_mut() else {
        return Ok(Recovered {
            segments,
            end: 0,
            cut: 0,
        });
    };
    let valid = valid_len(&last.path)?;
    let cut = last.len.saturating_sub(valid);
    if cut > 0 {
        let file = OpenOptions::new()
            .write(true)
            .open(&last.path)
            .map_err(LogError::io("open", &last.path))?;
        file.set_len(valid)
            .map_err(LogError::io("cut", &last.path))?;
        file.sync_all().map_err(LogError::io("sync", &last.path))?;
    }
    last.len = valid;
    let end = last.end();
    Ok(Recovered { segments, end, cut })
}

/// Length of the run of valid frames at the beginning of a file, read in small pieces.
fn valid_len(path: &Path) -> Result<u64, LogError> {
    let mut file = File::open(path).map_err(LogError::io("open", path))?;
    let mut buffer = vec![0; 4 * (HEADER_LEN + MAX_PAYLOAD)];
    let (mut held, mut valid) = (0, 0);
    loop {
        let read = read_some(&mut file, &mut buffer[held..]).map_err(LogError::io("read", path))?;
        held += read;
        let mut used = 0;
        loop {
            match Frame::decode(&buffer[used..held]) {
                Ok((_, length)) => used += length,
                Err(FrameError::Incomplete) if read > 0 => break,
                Err(_) => return Ok(valid + used as u64),
            }
        }
        buffer.copy_within(used..held, 0);
        held -= used;
        valid += used as u64;
    }
}

/// Reads until the buffer is full or the file ends.
pub(crate) fn read_some(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut held = 0;
    while held < buffer.len() {
        match file.read(&mut buffer[held..]) {
            Ok(0) => break,
            Ok(read) => held += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Stream;

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        Frame {
            time: 1,
            stream: Stream::Stdout,
            process: 0,
            flags: 0,
            payload,
        }
        .encode(&mut bytes);
        bytes
    }

    #[test]
    fn only_segment_names_count() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "00000000000000000010.log",
            "00000000000000000002.log",
            "1.log",
            "x.log",
            "a",
        ] {
            fs::write(dir.path().join(name), b"xyz").unwrap();
        }
        let bases: Vec<u64> = segments(dir.path())
            .unwrap()
            .iter()
            .map(|s| s.base)
            .collect();
        assert_eq!(bases, [2, 10]);
        assert_eq!(segments(&dir.path().join("none")).unwrap(), []);
    }

    #[test]
    fn a_torn_tail_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let whole = [frame(b"one"), frame(b"two")].concat();
        let torn = [whole.as_slice(), &frame(b"three")[..21]].concat();
        let path = path_of(dir.path(), 100);
        fs::write(&path, &torn).unwrap();
        let recovered = recover(dir.path()).unwrap();
        assert_eq!(recovered.end, 100 + whole.len() as u64);
        assert_eq!(recovered.cut, 21);
        assert_eq!(fs::read(&path).unwrap(), whole);
        assert_eq!(recover(dir.path()).unwrap().cut, 0);
    }

    #[test]
    fn a_long_segment_is_read_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let all = frame(&[7; 9000]).repeat(50);
        let path = path_of(dir.path(), 0);
        fs::write(&path, &all).unwrap();
        assert_eq!(recover(dir.path()).unwrap().end, all.len() as u64);
        fs::write(&path, &all[..all.len() - 1]).unwrap();
        assert_eq!(
            recover(dir.path()).unwrap().end,
            49 * frame(&[7; 9000]).len() as u64
        );
    }
}
