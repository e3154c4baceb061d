//! The end of a start's output, for people.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use berth_logfile::{Frames, segments};

/// Longest text of a line that is shown; the log itself has all of it.
const LONGEST: usize = 400;

/// The last `count` lines of a log folder, whatever stream they came from; what cannot be read is not shown.
/// Reads the newest two segments at most (the newest may have just begun).
pub fn last_lines(logs: &Path, count: usize) -> Vec<String> {
    last_lines_up_to(logs, count, LONGEST)
}

/// As [`last_lines`], with so much of each line.
pub fn last_lines_up_to(logs: &Path, count: usize, longest: usize) -> Vec<String> {
    let Ok(list) = segments(logs) else {
        return Vec::new();
    };
    let mut lines = VecDeque::new();
    let mut partial: BTreeMap<(u8, u8), Vec<u8>> = BTreeMap::new();
    for segment in list.iter().rev().take(2).rev() {
        let Ok(bytes) = std::fs::read(&segment.path) else {
            continue;
        };
        for (_, frame) in Frames::new(&bytes).map_while(Result::ok) {
            if frame.process_name().is_some() {
                continue;
            }
            if let Some(gap) = frame.gap() {
                lines.push_back(format!("[{} lines were dropped here]", gap.lines));
            } else {
                let begun = partial
                    .entry((frame.stream.to_byte(), frame.process))
                    .or_default();
                let room = longest.saturating_sub(begun.len());
                begun.extend_from_slice(&frame.payload[..frame.payload.len().min(room)]);
                if frame.is_partial() {
                    continue;
                }
                lines.push_back(shown(begun));
                begun.clear();
            }
            if lines.len() > count {
                lines.pop_front();
            }
        }
    }
    lines.extend(
        partial
            .values()
            .filter(|begun| !begun.is_empty())
            .map(|begun| shown(begun)),
    );
    while lines.len() > count {
        lines.pop_front();
    }
    lines.into()
}

/// Text without what would disturb a terminal.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars()
        .map(|c| if c.is_control() && c != '\t' { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use berth_logfile::{Frame, Gap, PARTIAL, SegmentWriter, Stream, WriterLimits};

    use super::*;

    #[test]
    fn the_last_lines_are_whole_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(last_lines(dir.path(), 10), Vec::<String>::new());
        let limits = WriterLimits {
            segment_bytes: 100,
            budget_bytes: 1 << 20,
        };
        let mut writer = SegmentWriter::open(dir.path(), limits).unwrap();
        let mut write = |stream, flags, payload: &[u8]| {
            let frame = Frame {
                time: 1,
                stream,
                process: 0,
                flags,
                payload,
            };
            writer.append(&frame).unwrap();
            writer.flush().unwrap();
        };
        for i in 0..20 {
            write(Stream::Stdout, 0, format!("line {i}").as_bytes());
        }
        write(Stream::Stdout, PARTIAL, b"out-");
        write(Stream::Stderr, 0, b"bad \x1b[31m\xff");
        write(Stream::Stdout, 0, b"end");
        write(
            Stream::Shim,
            berth_logfile::GAP,
            &Gap { lines: 7, bytes: 1 }.to_payload(),
        );
        let lines = last_lines(dir.path(), 4);
        assert_eq!(
            lines,
            [
                "line 19",
                "bad  [31m\u{fffd}",
                "out-end",
                "[7 lines were dropped here]"
            ]
        );
    }
}
