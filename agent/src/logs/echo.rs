//! A start's lines as plain text, beside their shipping: what `kubectl logs` shows.

use std::future::Future;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use berth_logfile::{Frames, Tail, TailReader};
use tokio::sync::{mpsc, oneshot};

use super::watch::Watcher;

/// Bytes read at once.
const BATCH: usize = 64 * 1024;

/// Pieces that wait for a slow reader of the text; more than these stay in the log.
const QUEUE: usize = 4;

/// Beside inotify, how often it is looked.
const SWEEP: Duration = Duration::from_secs(30);

/// Copies the lines in a log folder to `out` until `ended` resolves and all is read. Of lines that were shipped and
/// deleted before a slow reader took them, only a note is left: shipping never waits for it.
pub async fn echo(
    logs: PathBuf,
    ended: impl Future<Output = ()>,
    out: impl Write + Send + 'static,
) {
    let (text, pieces) = mpsc::channel(QUEUE);
    let (done, written) = oneshot::channel();
    // A thread of its own: whoever reads the text may stop to, for as long as it likes.
    let writer = std::thread::Builder::new().name("echo".to_owned());
    let begun = writer.spawn(move || {
        write(pieces, out);
        // If nobody waits for it any more, the agent is ending.
        let _ = done.send(());
    });
    if let Err(error) = begun {
        tracing::warn!(%error, "lines are not copied to standard output");
        return;
    }
    copy(logs, ended, &text).await;
    drop(text);
    let _ = written.await;
}

fn write(mut pieces: mpsc::Receiver<Vec<u8>>, mut out: impl Write) {
    while let Some(piece) = pieces.blocking_recv() {
        if out.write_all(&piece).and_then(|()| out.flush()).is_err() {
            // Nobody reads it: the rest is of no use.
            return;
        }
    }
}

async fn copy(logs: PathBuf, ended: impl Future<Output = ()>, text: &mpsc::Sender<Vec<u8>>) {
    let mut watcher = Watcher::new().ok();
    if let Some(watcher) = &mut watcher {
        // It is made by the shim, or here: who comes first.
        let watched = std::fs::create_dir_all(&logs).and_then(|()| watcher.add(&logs, ()));
        if let Err(error) = watched {
            tracing::warn!(%error, "lines are copied to standard output more slowly");
        }
    }
    let mut reader = TailReader::new(&logs, 0);
    let mut over = false;
    tokio::pin!(ended);
    loop {
        let piece = match reader.read(BATCH) {
            Ok(Tail::Frames { bytes, .. }) => plain(&bytes),
            Ok(Tail::Missing { next }) => {
                reader.seek(next);
                b"[lines are missing here: `berth logs` has all of them]\n".to_vec()
            }
            Ok(Tail::NothingNew) if over => return,
            Ok(Tail::NothingNew) => {
                tokio::select! {
                    () = &mut ended => over = true,
                    working = written(&mut watcher) => if !working { watcher = None },
                    () = tokio::time::sleep(SWEEP) => {}
                }
                continue;
            }
            Err(error) => {
                tracing::warn!(error = crate::chain(&error), "no more lines are copied");
                return;
            }
        };
        if text.send(piece).await.is_err() {
            return;
        }
    }
}

/// Waits for writes. False if it does not work any more.
async fn written(watcher: &mut Option<Watcher<()>>) -> bool {
    match watcher {
        Some(watcher) => watcher.written().await.is_ok(),
        None => std::future::pending().await,
    }
}

/// The lines in whole frames.
fn plain(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len());
    for (_, frame) in Frames::new(bytes).map_while(Result::ok) {
        if frame.process_name().is_some() {
            continue;
        }
        if let Some(gap) = frame.gap() {
            text.extend_from_slice(format!("[{} lines were dropped here]\n", gap.lines).as_bytes());
            continue;
        }
        text.extend_from_slice(frame.payload);
        if !frame.is_partial() {
            text.push(b'\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use berth_logfile::{Frame, PARTIAL, SegmentWriter, Stream, WriterLimits};

    use super::*;

    #[derive(Clone, Default)]
    struct Out(Arc<Mutex<Vec<u8>>>);

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn line(writer: &mut SegmentWriter, payload: &str, flags: u8) {
        let frame = Frame {
            time: 1,
            stream: Stream::Stderr,
            process: 0,
            flags,
            payload: payload.as_bytes(),
        };
        writer.append(&frame).unwrap();
        writer.flush().unwrap();
    }

    #[tokio::test]
    async fn every_line_is_copied_as_it_comes_up_to_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        let (end, ended) = oneshot::channel::<()>();
        let out = Out::default();
        let task = tokio::spawn(echo(logs.clone(), async { _ = ended.await }, out.clone()));
        let limits = WriterLimits {
            segment_bytes: 100,
            budget_bytes: 1 << 20,
        };
        let mut writer = SegmentWriter::open(&logs, limits).unwrap();
        line(&mut writer, "a", PARTIAL);
        line(&mut writer, "b", 0);
        while *out.0.lock().unwrap() != b"ab\n" {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        for i in 0..50 {
            line(&mut writer, &i.to_string(), 0);
        }
        end.send(()).unwrap();
        task.await.unwrap();
        let expected: String = (0..50).map(|i| format!("{i}\n")).collect();
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text, format!("ab\n{expected}"));
    }
}
