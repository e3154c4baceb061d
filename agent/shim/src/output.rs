//! One output stream of one process: bytes from a pipe, cut into lines.

use std::io;
use std::os::fd::OwnedFd;

use berth_logfile::{MAX_LINE, Stream};

/// Who takes the lines.
pub(crate) trait Sink {
    /// A line, or with `partial` the beginning or middle of one, without its newline.
    fn line(&mut self, process: u8, stream: Stream, partial: bool, line: &[u8]);
    /// All bytes of a stream as they come.
    fn raw(&mut self, stream: Stream, bytes: &[u8]);
}

/// Cuts a stream of bytes into lines, and over-long lines into parts.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    pending: Vec<u8>,
    /// Parts of the current line were given out already.
    inside: bool,
}

impl Splitter {
    /// Takes bytes and gives each line to `out` with whether it goes on.
    pub(crate) fn push(&mut self, bytes: &[u8], mut out: impl FnMut(bool, &[u8])) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (piece, whole) = match piece.split_last() {
                Some((b'\n', line)) => (line, true),
                _ => (piece, false),
            };
            if whole && self.pending.is_empty() && piece.len() <= MAX_LINE {
                out(false, piece);
                self.inside = false;
                continue;
            }
            self.pending.extend_from_slice(piece);
            // A line of just the limit is not over-long: one byte more decides.
            while self.pending.len() > MAX_LINE {
                out(true, &self.pending[..MAX_LINE]);
                self.pending.drain(..MAX_LINE);
                self.inside = true;
            }
            if whole {
                out(false, &self.pending);
                self.pending = Vec::new();
                self.inside = false;
            }
        }
    }

    /// Gives out a last line that has no newline.
    pub(crate) fn finish(&mut self, mut out: impl FnMut(bool, &[u8])) {
        if self.inside || !self.pending.is_empty() {
            out(false, &self.pending);
        }
        *self = Self::default();
    }
}

/// The reading end of a process's stream.
#[derive(Debug)]
pub(crate) struct Pipe {
    /// The pipe, non-blocking.
    pub(crate) end: OwnedFd,
    process: u8,
    stream: Stream,
    splitter: Splitter,
}

/// What a pipe has after pumping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pumped {
    /// Perhaps more.
    More,
    /// Nothing now.
    Dry,
    /// Nothing ever again.
    Closed,
}

impl Pipe {
    pub(crate) fn new(end: OwnedFd, process: u8, stream: Stream) -> Self {
        Self {
            end,
            process,
            stream,
            splitter: Splitter::default(),
        }
    }

    /// Reads once and passes on the lines.
    pub(crate) fn pump(&mut self, buffer: &mut [u8], sink: &mut impl Sink) -> Pumped {
        match rustix::io::read(&self.end, &mut *buffer) {
            Ok(0) => Pumped::Closed,
            Ok(length) => {
                let bytes = &buffer[..length];
                sink.raw(self.stream, bytes);
                self.splitter.push(bytes, |partial, line| {
                    sink.line(self.process, self.stream, partial, line)
                });
                if length == buffer.len() {
                    Pumped::More
                } else {
                    Pumped::Dry
                }
            }
            Err(error) => match io::Error::from(error).kind() {
                io::ErrorKind::WouldBlock => Pumped::Dry,
                io::ErrorKind::Interrupted => Pumped::More,
                _ => Pumped::Closed,
            },
        }
    }

    /// Passes on a last line without newline.
    pub(crate) fn finish(&mut self, sink: &mut impl Sink) {
        self.splitter
            .finish(|partial, line| sink.line(self.process, self.stream, partial, line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<(bool, Vec<u8>)> {
        let mut splitter = Splitter::default();
        let mut lines = Vec::new();
        for chunk in chunks {
            splitter.push(chunk, |partial, line| lines.push((partial, line.to_vec())));
        }
        splitter.finish(|partial, line| lines.push((partial, line.to_vec())));
        lines
    }

    #[test]
    fn lines_are_the_same_however_the_bytes_come() {
        let text: &[u8] = b"one\n\ntwo \xff\xfe\r\nlast";
        let whole = split(&[text]);
        let expected: [&[u8]; 4] = [b"one", b"", b"two \xff\xfe\r", b"last"];
        assert_eq!(whole, expected.map(|line| (false, line.to_vec())));
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(split(&bytes), whole);
        assert_eq!(split(&[b"x\n"]), [(false, b"x".to_vec())]);
        assert_eq!(split(&[]), []);
    }

    #[test]
    fn over_long_lines_come_in_parts_and_none_is_empty() {
        for chunk in [1000, MAX_LINE, 100_000] {
            for (length, parts) in [
                (MAX_LINE, 1),
                (MAX_LINE + 1, 2),
                (2 * MAX_LINE, 2),
                (40_000, 3),
            ] {
                let mut text = vec![b'x'; length];
                text.extend_from_slice(b"\nnext\n");
                let chunks: Vec<&[u8]> = text.chunks(chunk).collect();
                let lines = split(&chunks);
                assert_eq!(
                    lines.len(),
                    parts + 1,
                    "length {length} in chunks of {chunk}"
                );
                let (long, next) = lines.split_at(parts);
                assert!(long[..parts - 1].iter().all(|(partial, _)| *partial));
                assert!(!long[parts - 1].0);
                assert!(long.iter().all(|(_, line)| !line.is_empty()));
                assert_eq!(
                    long.iter().map(|(_, line)| line.len()).sum::<usize>(),
                    length
                );
                assert_eq!(next, [(false, b"next".to_vec())]);
            }
        }
    }
}
