//! Where to begin in a stream.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use berth_logfile::{Frame, FrameError, HEADER_LEN, MAX_PAYLOAD, Segment, segments};

use crate::index::{Index, Known};
use crate::{LogsError, StreamKey};

/// How far a node's clock may be from the coordinator's where a file's time of change stands for the
/// times of its lines.
const SKEW: Duration = Duration::from_secs(3600);

/// When a segment was last written to, plus the skew: no line in it is later. Unix nanoseconds.
pub(crate) fn latest(segment: &Segment) -> u64 {
    let modified = segment.path.metadata().and_then(|meta| meta.modified());
    let since_1970 = modified
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since_1970.map_or(u64::MAX, |time| {
        u64::try_from((time + SKEW).as_nanos()).unwrap_or(u64::MAX)
    })
}

/// Time of the first frame of a segment; none if it is empty, torn or gone.
pub(crate) fn first_time(segment: &Segment) -> Result<Option<u64>, LogsError> {
    let mut header = [0; HEADER_LEN];
    match File::open(&segment.path).and_then(|mut file| file.read_exact(&mut header)) {
        Ok(()) => {
            let mut time = [0; 8];
            time.copy_from_slice(&header[8..16]);
            Ok(Some(u64::from_le_bytes(time)))
        }
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(LogsError::io("read", &segment.path)(error)),
    }
}

/// Where the lines of `since` or later begin, roughly: never behind the first of them. None if the
/// stream has no such lines.
pub(crate) fn begin_since(dir: &Path, since: u64) -> Result<Option<u64>, LogsError> {
    let segments = segments(dir)?;
    let recent = segments.iter().position(|segment| latest(segment) >= since);
    let Some(first) = recent else {
        return Ok(None);
    };
    let mut begin = segments[first].base;
    for segment in &segments[first..] {
        match first_time(segment)? {
            Some(time) if time < since => begin = segment.base,
            // The first segment that begins in time: the one before it may hold some, too.
            _ => break,
        }
    }
    Ok(Some(begin))
}

/// Calls for each valid frame of a segment from its beginning, with its offset in the stream; tells the
/// offset behind the last.
pub(crate) fn scan(
    segment: &Segment,
    mut each: impl FnMut(u64, &Frame<'_>),
) -> Result<u64, LogsError> {
    let mut file = match File::open(&segment.path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(segment.base),
        Err(error) => return Err(LogsError::io("open", &segment.path)(error)),
    };
    let mut buffer = vec![0; 4 * (HEADER_LEN + MAX_PAYLOAD)];
    let (mut held, mut offset) = (0, segment.base);
    loop {
        let read = match file.read(&mut buffer[held..]) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(LogsError::io("read", &segment.path)(error)),
        };
        held += read;
        let mut used = 0;
        loop {
            match Frame::decode(&buffer[used..held]) {
                Ok((frame, length)) => {
                    each(offset, &frame);
                    used += length;
                    offset += length as u64;
                }
                Err(FrameError::Incomplete) if read > 0 => break,
                Err(_) => return Ok(offset),
            }
        }
        buffer.copy_within(used..held, 0);
        held -= used;
    }
}

/// The offset behind the last valid frame of a stream.
pub(crate) fn end(root: &Path, index: &Index, known: &Known) -> Result<u64, LogsError> {
    let (key, durable): (&StreamKey, _) = (&known.0, known.1);
    if let Some(durable) = durable {
        return Ok(durable);
    }
    let end = match segments(&key.dir(root))?.last() {
        Some(last) => scan(last, |_, _| {})?,
        None => 0,
    };
    index.learn(key, end);
    Ok(end)
}
