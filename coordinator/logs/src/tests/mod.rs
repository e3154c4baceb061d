//! The log store as a whole.

mod follow;
mod keep;
mod properties;
mod read;

use std::path::Path;
use std::time::Duration;

use berth_logfile::{Frame, GAP, Gap, PARTIAL, PROCESS_NAME, Stream as Kind};
use berth_model::record::{LogLine, Stream};
use bytes::Bytes;

use super::*;

const BOOT: &str = "0f3a1c52-9a8e-4c1b-8f5e-5f7c6b1d2e3f";

/// The whole content of one stream, as its shim would write it, and where its frames begin.
#[derive(Default, Clone)]
struct Log {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

impl Log {
    /// Names its process.
    fn new() -> Self {
        let mut log = Self::default();
        log.frame(0, PROCESS_NAME, b"module");
        log
    }

    fn frame(&mut self, time: u64, flags: u8, payload: &[u8]) {
        self.starts.push(self.bytes.len());
        let frame = Frame {
            time,
            stream: Kind::Stdout,
            process: 0,
            flags,
            payload,
        };
        frame.encode(&mut self.bytes);
    }

    fn line(&mut self, time: u64, text: &str) {
        self.frame(time, 0, text.as_bytes());
    }

    fn range(&self, range: std::ops::Range<usize>) -> Bytes {
        Bytes::copy_from_slice(&self.bytes[range])
    }

    fn all(&self) -> Bytes {
        Bytes::copy_from_slice(&self.bytes)
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }
}

fn key(instance: &str, start: u32) -> StreamKey {
    StreamKey::parse(instance, start, BOOT).unwrap()
}

fn service(name: &str) -> Query {
    Query::of(Scope::Service(name.parse().unwrap()))
}

fn keep_all() -> Retention {
    Retention {
        max_age: Duration::from_secs(1 << 40),
        max_bytes: u64::MAX,
        per_service_bytes: u64::MAX,
    }
}

fn small(dir: &Path) -> LogStore {
    LogStore::open_with(dir, keep_all(), 300).unwrap()
}

async fn all(mut lines: Lines) -> Vec<LogLine> {
    let mut found = Vec::new();
    while let Some(line) = lines.next().await {
        found.push(line.unwrap());
    }
    found
}

fn texts(lines: &[LogLine]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

async fn read(store: &LogStore, query: Query) -> Vec<String> {
    all(store.read(query))
        .await
        .into_iter()
        .map(|line| line.text)
        .collect()
}
