//! Several requests under way at a time, and their predictions in the order of the rows.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::failure::Failure;
use crate::output::Output;
use crate::rows::{Batch, Rows};

/// Time between lines of progress.
const PROGRESS: Duration = Duration::from_secs(30);

/// A batch's place, its rows, and its predictions.
type Done = (u64, usize, Result<Vec<u8>, Failure>);

/// Counts rows, and says so now and then.
pub(crate) struct Progress {
    /// Rows whose predictions are written.
    pub(crate) rows: u64,
    said: Instant,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            rows: 0,
            said: Instant::now(),
        }
    }

    fn add(&mut self, rows: usize) {
        self.rows += rows as u64;
        if self.said.elapsed() >= PROGRESS {
            self.said = Instant::now();
            crate::say(&format!("{} rows done", self.rows));
        }
    }
}

/// Predicts all rows into `output`. Holds at most twice as many batches as requests may be under way.
pub(crate) fn run(
    rows: &mut Rows<impl BufRead>,
    client: &Client,
    in_flight: usize,
    output: &mut Output,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let (work, done) = workers(client, in_flight);
    let mut waiting: BTreeMap<u64, (usize, Vec<u8>)> = BTreeMap::new();
    let (mut sent, mut written, mut more) = (0u64, 0u64, true);
    loop {
        while more && sent - written < 2 * in_flight as u64 {
            let Some(batch) = rows.batch()? else {
                more = false;
                continue;
            };
            // The channel holds all that may be under way. Without workers there is nothing to wait for.
            if work.send(batch).is_err() {
                return Err(broke_off());
            }
            sent += 1;
        }
        if written == sent {
            return Ok(());
        }
        let Ok((index, count, predictions)) = done.recv() else {
            return Err(broke_off());
        };
        waiting.insert(index, (count, predictions?));
        while let Some((count, lines)) = waiting.remove(&written) {
            output.write(&lines)?;
            written += 1;
            progress.add(count);
        }
    }
}

fn broke_off() -> Failure {
    Failure::Settings("the driver's own workers broke off: this is a mistake in it".to_owned())
}

/// Threads of their own, which end when there is no more work. One in the middle of a request is not waited
/// for: after a failure the process ends.
fn workers(client: &Client, count: usize) -> (SyncSender<Batch>, Receiver<Done>) {
    let (work, batches) = mpsc::sync_channel::<Batch>(2 * count);
    let (send, done) = mpsc::channel();
    let batches = Arc::new(Mutex::new(batches));
    for _ in 0..count {
        let (client, batches, send) = (client.clone(), batches.clone(), send.clone());
        std::thread::spawn(move || {
            loop {
                // A panic elsewhere leaves the channel as good as it was.
                let next = batches
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .recv();
                let Ok(batch) = next else { return };
                let predictions = client.predict(&batch);
                if send
                    .send((batch.index, batch.rows.len(), predictions))
                    .is_err()
                {
                    return;
                }
            }
        });
    }
    (work, done)
}
