//! Decompression on a thread of its own.

use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;

use crate::block::{Block, Pool};
use crate::error::{PackageError, Refused};
use crate::limits::Limits;

const READ_BYTES: usize = 256 << 10;

/// Part of a block.
pub(crate) type Slice = (Arc<Block>, Range<usize>);

/// The unpacked bytes of an archive, slice by slice.
pub(crate) struct Feed {
    blocks: Receiver<Result<Arc<Block>, PackageError>>,
    current: Option<Arc<Block>>,
    at: usize,
    /// Bytes handed out.
    pub(crate) offset: u64,
}

impl Feed {
    /// Starts decompressing. After an early end of the feed the thread stops at its next block, which
    /// is when `reader` returns from the read it may be in.
    pub(crate) fn start<'scope, 'env, R: Read + Send + 'scope>(
        scope: &'scope Scope<'scope, 'env>,
        reader: R,
        limits: Limits,
    ) -> Self {
        let (sender, blocks) = channel();
        scope.spawn(move || {
            if let Err(error) = decompress(reader, limits, &sender) {
                // Nobody listens any more when another error was first.
                let _ = sender.send(Err(error));
            }
        });
        Self {
            blocks,
            current: None,
            at: 0,
            offset: 0,
        }
    }

    /// The next bytes, at most `most`; nothing at the end.
    pub(crate) fn next(&mut self, most: u64) -> Result<Option<Slice>, PackageError> {
        let block = match self.current.take() {
            Some(block) => block,
            None => match self.blocks.recv() {
                Ok(block) => block?,
                Err(_) => return Ok(None),
            },
        };
        let left = block.len() - self.at;
        let taken = usize::try_from(most).map_or(left, |most| most.min(left));
        let range = self.at..self.at + taken;
        if taken < left {
            self.at += taken;
            self.current = Some(Arc::clone(&block));
        } else {
            self.at = 0;
        }
        self.offset += taken as u64;
        Ok(Some((block, range)))
    }

    /// Fills `out`. Errors: [`Refused::Truncated`] when there is not enough.
    pub(crate) fn exact(&mut self, out: &mut [u8]) -> Result<(), PackageError> {
        let mut filled = 0;
        while filled < out.len() {
            let (block, range) = self
                .next((out.len() - filled) as u64)?
                .ok_or(Refused::Truncated)?;
            out[filled..filled + range.len()].copy_from_slice(&block[range.clone()]);
            filled += range.len();
        }
        Ok(())
    }
}

fn decompress<R: Read>(
    reader: R,
    limits: Limits,
    out: &Sender<Result<Arc<Block>, PackageError>>,
) -> Result<(), PackageError> {
    let input = BufReader::with_capacity(
        READ_BYTES,
        Input {
            reader,
            bytes: 0,
            failed: false,
        },
    );
    let mut decoder = zstd::Decoder::with_buffer(input)
        .map_err(PackageError::io("start decompressing"))?
        .single_frame();
    decoder
        .window_log_max(limits.window_log)
        .map_err(PackageError::io("start decompressing"))?;
    let pool = Pool::new();
    let mut expanded = 0u64;
    loop {
        let block = pool.fill(|buffer| fill(&mut decoder, buffer))?;
        if block.is_empty() {
            break;
        }
        expanded += block.len() as u64;
        let compressed = decoder.get_ref().get_ref().bytes;
        if expanded > limits.ratio_from_bytes && expanded / limits.ratio > compressed {
            return Err(Refused::Bomb {
                compressed,
                expanded,
            }
            .into());
        }
        if out.send(Ok(block)).is_err() {
            return Ok(());
        }
    }
    let mut input = decoder.finish();
    let rest = input
        .fill_buf()
        .map_err(PackageError::io("read the archive"))?;
    if !rest.is_empty() {
        return Err(Refused::Junk {
            what: "compressed data",
        }
        .into());
    }
    Ok(())
}

/// Fills the buffer as far as the frame goes.
fn fill<R: Read>(
    decoder: &mut zstd::Decoder<'_, BufReader<Input<R>>>,
    buffer: &mut [u8],
) -> Result<usize, PackageError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match decoder.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) if decoder.get_ref().get_ref().failed => {
                return Err(PackageError::io("read the archive")(error));
            }
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(Refused::Truncated.into());
            }
            Err(error) => {
                return Err(Refused::Compression {
                    message: error.to_string(),
                }
                .into());
            }
        }
    }
    Ok(filled)
}

/// Counts what is read, and remembers whether an error was the reader's own.
struct Input<R> {
    reader: R,
    bytes: u64,
    failed: bool,
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.reader.read(buffer) {
            Ok(count) => {
                self.bytes += count as u64;
                Ok(count)
            }
            Err(error) => {
                self.failed = error.kind() != std::io::ErrorKind::Interrupted;
                Err(error)
            }
        }
    }
}
