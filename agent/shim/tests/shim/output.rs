//! What processes write is kept, byte by byte, or counted.

use std::fs;

use berth_logfile::{MAX_LINE, Stream, Tail, TailReader, segments};
use berth_shim::state::Status;

use crate::harness::{Log, Start, first, script, spec};

#[test]
fn every_byte_of_every_line_is_kept() {
    let body =
        r"printf 'one\n\ntwo \377\376\000x\r\n'; printf 'on stderr\n' >&2; printf 'no newline'";
    let mut start = Start::new(&spec(vec![script("module", body)]));
    start.ended();
    let log = start.log();
    let lines: Vec<&[u8]> = log
        .lines
        .iter()
        .filter(|line| line.stream == Stream::Stdout)
        .map(|line| line.text.as_slice())
        .collect();
    let expected: [&[u8]; 4] = [b"one", b"", b"two \xff\xfe\x00x\r", b"no newline"];
    assert_eq!(lines, expected);
    assert_eq!(log.texts(Stream::Stderr), ["on stderr"]);
    assert_eq!(log.dropped, 0);
}

#[test]
fn a_long_line_is_split_and_marked() {
    let body = "head -c 40000 /dev/zero | tr '\\0' x; echo; echo next";
    let mut start = Start::new(&spec(vec![script("module", body)]));
    start.ended();
    let log = start.log();
    let shape: Vec<(usize, bool)> = log
        .lines
        .iter()
        .map(|line| (line.text.len(), line.partial))
        .collect();
    let rest = 40_000 - 2 * MAX_LINE;
    assert_eq!(
        shape,
        [
            (MAX_LINE, true),
            (MAX_LINE, true),
            (rest, false),
            (4, false)
        ]
    );
}

#[test]
fn a_flood_over_the_budget_is_counted_and_never_blocks() {
    let mut spec = spec(vec![script("module", "seq 1 300000; echo end >&2; exit 5")]);
    spec.log.segment_bytes = 64 << 10;
    spec.log.budget_bytes = 1 << 20;
    let mut start = Start::new(&spec);
    let state = start.ended();
    assert_eq!(*first(&state), Status::Exited { code: 5 });
    let log = start.log();
    let kept = log.texts(Stream::Stdout).len() as u64;
    let on_stderr = log.texts(Stream::Stderr).len() as u64;
    assert!(kept > 10_000 && log.dropped > 100_000);
    assert_eq!(kept + on_stderr + log.dropped, 300_001);
    let used: u64 = segments(&start.dir.join("logs"))
        .unwrap()
        .iter()
        .map(|s| s.len)
        .sum();
    assert!(used <= (1 << 20) + 1024, "{used}");
    assert_eq!(state.stderr_tail.as_deref(), Some("end\n"));
}

#[test]
fn room_made_by_the_agent_is_used() {
    let body = "for burst in 1 2 3 4 5 6; do seq 1 50000; sleep 0.2; done";
    let mut spec = spec(vec![script("module", body)]);
    spec.log.segment_bytes = 64 << 10;
    spec.log.budget_bytes = 1 << 20;
    let mut start = Start::new(&spec);
    let logs = start.dir.join("logs");
    let mut tail = TailReader::new(&logs, 0);
    let mut log = Log::default();
    // An agent that ships and deletes.
    let mut ended = false;
    loop {
        match tail.read(1 << 20).unwrap() {
            Tail::Frames { bytes, .. } => {
                log.add(&bytes);
                let list = segments(&logs).unwrap();
                let closed = &list[..list.len() - 1];
                for segment in closed
                    .iter()
                    .filter(|segment| segment.end() <= tail.offset())
                {
                    fs::remove_file(&segment.path).unwrap();
                }
            }
            Tail::NothingNew if ended => break,
            Tail::NothingNew => ended = start.try_ended(),
            Tail::Missing { next } => panic!("lost everything up to {next}"),
        }
    }
    assert_eq!(log.lines.len() as u64 + log.dropped, 300_000);
    assert!(
        tail.offset() > 2 << 20,
        "only {} bytes were kept",
        tail.offset()
    );
    start.ended();
}
