//! One frame: a line, a part of a line, or a note about the log itself.
//!
//! Layout, little-endian: `crc32` (u32, over all that follows), payload length (u32), time (u64, Unix
//! nanoseconds), stream (u8), process index (u8), flags (u8), reserved (u8, zero), payload.

/// Length of a frame without its payload, in bytes.
pub const HEADER_LEN: usize = 20;

/// Longest line, in bytes, that fits into one frame; longer ones are split into [`PARTIAL`] frames.
pub const MAX_LINE: usize = 16 * 1024;

/// Longest payload of any frame. A length beyond it is damage, so that a reader never waits for, or
/// allocates, what a damaged length says.
pub const MAX_PAYLOAD: usize = MAX_LINE;

/// Flag: the line goes on in the next frame of the same stream and process.
pub const PARTIAL: u8 = 1;

/// Flag: lines were dropped here; the payload is a [`Gap`].
pub const GAP: u8 = 2;

/// Flag: declares the name of a process index; the payload is the name. At the start of each segment.
pub const PROCESS_NAME: u8 = 4;

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// The process's standard output.
    Stdout,
    /// The process's standard error.
    Stderr,
    /// The shim itself.
    Shim,
    /// A stream of a newer version; never 0, so that zeroed bytes are no frame.
    Other(u8),
}

impl Stream {
    /// The byte that stands for it in a frame.
    pub fn to_byte(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
            Self::Shim => 3,
            Self::Other(byte) => byte,
        }
    }

    /// The stream that a frame's byte stands for; none for 0.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => None,
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            3 => Some(Self::Shim),
            other => Some(Self::Other(other)),
        }
    }
}

/// What a [`GAP`] frame says was dropped at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gap {
    /// Lines (the last one may be the rest of a line whose beginning was kept).
    pub lines: u64,
    /// Bytes of those lines, without newlines.
    pub bytes: u64,
}

impl Gap {
    /// The payload of its frame.
    pub fn to_payload(self) -> [u8; 16] {
        let mut payload = [0; 16];
        payload[..8].copy_from_slice(&self.lines.to_le_bytes());
        payload[8..].copy_from_slice(&self.bytes.to_le_bytes());
        payload
    }
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The bytes end before the frame does. More may come, or never will (a torn tail).
    #[error("the frame is not complete")]
    Incomplete,
    /// The bytes are no frame, whatever follows.
    #[error("not a frame")]
    Damaged,
}

/// One frame, borrowing its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// When the line was read, Unix nanoseconds.
    pub time: u64,
    /// Where it came from.
    pub stream: Stream,
    /// Index of the process in the spec.
    pub process: u8,
    /// [`PARTIAL`], [`GAP`], [`PROCESS_NAME`], or bits of a newer version.
    pub flags: u8,
    /// The line without its newline, any bytes; at most [`MAX_PAYLOAD`].
    pub payload: &'a [u8],
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..at + 4)?
        .try_into()
        .ok()
        .map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..at + 8)?
        .try_into()
        .ok()
        .map(u64::from_le_bytes)
}

impl<'a> Frame<'a> {
    /// Length in bytes once encoded.
    pub fn encoded_len(&self) -> usize {
        HEADER_LEN + self.payload.len().min(MAX_PAYLOAD)
    }

    /// Appends the encoded frame. A payload beyond [`MAX_PAYLOAD`] is cut: callers split first.
    pub fn encode(&self, into: &mut Vec<u8>) {
        let payload = &self.payload[..self.payload.len().min(MAX_PAYLOAD)];
        let begin = into.len();
        into.extend_from_slice(&[0; 4]);
        into.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        into.extend_from_slice(&self.time.to_le_bytes());
        into.extend_from_slice(&[self.stream.to_byte(), self.process, self.flags, 0]);
        into.extend_from_slice(payload);
        let crc = crc32fast::hash(&into[begin + 4..]);
        into[begin..begin + 4].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads the frame at the beginning of `bytes`, and its length.
    pub fn decode(bytes: &'a [u8]) -> Result<(Self, usize), FrameError> {
        let length = u32_at(bytes, 4).ok_or(FrameError::Incomplete)? as usize;
        if length > MAX_PAYLOAD {
            return Err(FrameError::Damaged);
        }
        let end = HEADER_LEN + length;
        let rest = bytes.get(4..end).ok_or(FrameError::Incomplete)?;
        let crc = u32_at(bytes, 0).ok_or(FrameError::Incomplete)?;
        if crc32fast::hash(rest) != crc {
            return Err(FrameError::Damaged);
        }
        let frame = Self {
            time: u64_at(bytes, 8).ok_or(FrameError::Incomplete)?,
            stream: Stream::from_byte(bytes[16]).ok_or(FrameError::Damaged)?,
            process: bytes[17],
            flags: bytes[18],
            payload: &bytes[HEADER_LEN..end],
        };
        Ok((frame, end))
    }

    /// Whether the line goes on in the next frame of the same stream and process.
    pub fn is_partial(&self) -> bool {
        self.flags & PARTIAL != 0
    }

    /// What was dropped here, if this is a gap.
    pub fn gap(&self) -> Option<Gap> {
        if self.flags & GAP == 0 {
            return None;
        }
        Some(Gap {
            lines: u64_at(self.payload, 0)?,
            bytes: u64_at(self.payload, 8)?,
        })
    }

    /// The name that this frame declares for its process index, if it does.
    pub fn process_name(&self) -> Option<&'a [u8]> {
        (self.flags & PROCESS_NAME != 0).then_some(self.payload)
    }

    /// Whether this frame is (part of) a line, and not a note about the log.
    pub fn is_line(&self) -> bool {
        self.flags & (GAP | PROCESS_NAME) == 0
    }
}

/// The frames in a run of bytes, each with its offset in them. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Frames<'a> {
    bytes: &'a [u8],
    at: usize,
    failed: bool,
}

impl<'a> Frames<'a> {
    /// Frames of `bytes`, which begin at a frame's border.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            failed: false,
        }
    }

    /// Offset in the bytes at which the next frame would begin: after all were read, the length of
    /// the valid part.
    pub fn offset(&self) -> usize {
        self.at
    }

    /// Reads to the end or the first error, and tells the length of the valid part and the error.
    pub fn check(mut self) -> (usize, Option<FrameError>) {
        let error = self.by_ref().find_map(Result::err);
        (self.at, error)
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<(usize, Frame<'a>), FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.at == self.bytes.len() {
            return None;
        }
        Some(match Frame::decode(&self.bytes[self.at..]) {
            Ok((frame, length)) => {
                let at = self.at;
                self.at += length;
                Ok((at, frame))
            }
            Err(error) => {
                self.failed = true;
                Err(error)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_documented_one() {
        let frame = Frame {
            time: 0x0102_0304_0506_0708,
            stream: Stream::Stderr,
            process: 7,
            flags: PARTIAL,
            payload: b"hi",
        };
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        assert_eq!(bytes.len(), frame.encoded_len());
        assert_eq!(bytes[4..8], [2, 0, 0, 0]);
        assert_eq!(bytes[8..16], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(bytes[16..20], [2, 7, 1, 0]);
        assert_eq!(bytes[20..], *b"hi");
        assert_eq!(bytes[..4], crc32fast::hash(&bytes[4..]).to_le_bytes());
    }

    #[test]
    fn zeroes_are_no_frame() {
        assert_eq!(Frame::decode(&[0; 64]), Err(FrameError::Damaged));
    }

    #[test]
    fn a_monstrous_length_is_damage_and_not_a_long_wait() {
        assert_eq!(Frame::decode(&[0xff; 12]), Err(FrameError::Damaged));
    }

    #[test]
    fn a_gap_says_what_is_missing() {
        let gap = Gap {
            lines: 3,
            bytes: 99,
        };
        let payload = gap.to_payload();
        let frame = Frame {
            time: 1,
            stream: Stream::Stdout,
            process: 0,
            flags: GAP,
            payload: &payload,
        };
        assert_eq!(frame.gap(), Some(gap));
        assert!(!frame.is_line());
        assert_eq!(frame.process_name(), None);
    }
}
