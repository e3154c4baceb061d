//! Hashing and chunking on a thread of its own, beside reading and writing.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Scope, ScopedJoinHandle};

use crate::block::Block;
use crate::chunk::{FileHasher, Gear};
use crate::index::Chunk;

/// A file's hash and chunks.
pub(crate) type FileHash = (blake3::Hash, Vec<Chunk>);

enum Work {
    File(u64),
    Data(Arc<Block>, Range<usize>),
}

/// Feeds the hashing thread with files, one after the other.
pub(crate) struct Hashing<'scope> {
    work: Sender<Work>,
    thread: ScopedJoinHandle<'scope, Vec<FileHash>>,
}

impl<'scope> Hashing<'scope> {
    /// Starts the thread. What it holds is bounded by the pool the blocks come from.
    pub(crate) fn start<'env>(scope: &'scope Scope<'scope, 'env>) -> Self {
        let (work, todo) = channel();
        Self {
            work,
            thread: scope.spawn(move || run(&todo)),
        }
    }

    /// Begins a file of `size` bytes.
    pub(crate) fn file(&self, size: u64) {
        self.send(Work::File(size));
    }

    /// The current file's next bytes.
    pub(crate) fn data(&self, block: Arc<Block>, range: Range<usize>) {
        self.send(Work::Data(block, range));
    }

    fn send(&self, work: Work) {
        // The thread ends only when this sender does, or by a panic that `finish` passes on.
        let _ = self.work.send(work);
    }

    /// The hashes of the files, in the order they were begun.
    pub(crate) fn finish(self) -> Vec<FileHash> {
        drop(self.work);
        match self.thread.join() {
            Ok(hashes) => hashes,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

fn run(todo: &Receiver<Work>) -> Vec<FileHash> {
    let gear = Gear::new();
    let mut done = Vec::new();
    let mut current: Option<FileHasher> = None;
    for work in todo {
        match work {
            Work::File(size) => {
                done.extend(
                    current
                        .replace(FileHasher::new(size))
                        .map(FileHasher::finish),
                );
            }
            Work::Data(block, range) => {
                if let Some(hasher) = &mut current {
                    hasher.update(&gear, &block[range]);
                }
            }
        }
    }
    done.extend(current.map(FileHasher::finish));
    done
}
