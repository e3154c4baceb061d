//! Buffers that go from thread to thread and come back.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Bytes of a buffer: large enough that hand-overs cost nothing, small enough for the cache.
const BLOCK_BYTES: usize = 256 << 10;
/// Buffers of one pool. They bound what is read ahead.
const BLOCKS: usize = 16;

/// A filled buffer; it returns to its pool when the last holder drops it.
pub(crate) struct Block {
    data: Vec<u8>,
    length: usize,
    home: Sender<Vec<u8>>,
}

impl Deref for Block {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.data[..self.length]
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // The pool may be gone, and then the buffer is simply freed.
        let _ = self.home.send(std::mem::take(&mut self.data));
    }
}

/// A fixed number of buffers; taking one waits until one is free.
pub(crate) struct Pool {
    free: Receiver<Vec<u8>>,
    home: Sender<Vec<u8>>,
    fresh: usize,
}

impl Pool {
    pub(crate) fn new() -> Self {
        let (home, free) = channel();
        Self {
            free,
            home,
            fresh: BLOCKS,
        }
    }

    /// Fills a buffer with `fill`, which returns how much it wrote.
    pub(crate) fn fill<E>(
        &mut self,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<Arc<Block>, E> {
        let data = match self.free.try_recv() {
            Ok(data) => data,
            Err(_) if self.fresh > 0 => {
                self.fresh -= 1;
                vec![0; BLOCK_BYTES]
            }
            // The pool holds a sender itself, so this waits and never fails.
            Err(_) => self.free.recv().unwrap_or_else(|_| vec![0; BLOCK_BYTES]),
        };
        let mut block = Block {
            data,
            length: 0,
            home: self.home.clone(),
        };
        let length = fill(&mut block.data)?;
        block.length = length.min(block.data.len());
        Ok(Arc::new(block))
    }
}
