//! Buffers that go from thread to thread and come back.

use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes of a buffer: large enough that hand-overs cost nothing, small enough for the cache.
const BLOCK_BYTES: usize = 256 << 10;
/// Buffers of one pool, 16 MiB. They bound what is read ahead. A machine with time needs a few of
/// them; on a busy one each thread gets its turn seldom, and then shall find much to do.
const BLOCKS: usize = 64;

/// A filled buffer; it returns to its pool when the last holder drops it.
pub(crate) struct Block {
    data: Vec<u8>,
    length: usize,
    home: Arc<Home>,
}

impl Deref for Block {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.data[..self.length]
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.home
            .free()
            .buffers
            .push(std::mem::take(&mut self.data));
        self.home.returned.notify_one();
    }
}

struct Home {
    free: Mutex<Free>,
    returned: Condvar,
}

struct Free {
    /// The last to come back goes out first: it is still in the cache.
    buffers: Vec<Vec<u8>>,
    /// How many may still be made.
    unmade: usize,
}

impl Home {
    fn free(&self) -> MutexGuard<'_, Free> {
        // Nothing under the lock can panic half-way.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A fixed number of buffers; taking one waits until one is free.
pub(crate) struct Pool {
    home: Arc<Home>,
}

impl Pool {
    pub(crate) fn new() -> Self {
        let free = Free {
            buffers: Vec::new(),
            unmade: BLOCKS,
        };
        let home = Home {
            free: Mutex::new(free),
            returned: Condvar::new(),
        };
        Self {
            home: Arc::new(home),
        }
    }

    /// Fills a buffer with `fill`, which returns how much it wrote.
    pub(crate) fn fill<E>(
        &self,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<Arc<Block>, E> {
        let mut block = Block {
            data: self.take(),
            length: 0,
            home: Arc::clone(&self.home),
        };
        let length = fill(&mut block.data)?;
        block.length = length.min(block.data.len());
        Ok(Arc::new(block))
    }

    fn take(&self) -> Vec<u8> {
        let mut free = self.home.free();
        loop {
            if let Some(buffer) = free.buffers.pop() {
                return buffer;
            }
            if free.unmade > 0 {
                free.unmade -= 1;
                return vec![0; BLOCK_BYTES];
            }
            let waited = self.home.returned.wait(free);
            free = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}
