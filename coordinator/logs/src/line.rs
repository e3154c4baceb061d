//! From frames to lines.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use berth_logfile::{Frame, Stream as Kind};
use berth_model::record::{LogLine, Stream};

use crate::names::Names;
use crate::{Query, StreamKey};

/// Which lines are wanted.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    pub(crate) since: u64,
    pub(crate) until: u64,
    grep: Option<regex::Regex>,
}

impl Filter {
    pub(crate) fn of(query: &Query) -> Self {
        Self {
            since: query.since.unwrap_or(0),
            until: query.until.unwrap_or(u64::MAX),
            grep: query.grep.clone(),
        }
    }

    /// The line of a frame, if it is one and is wanted.
    pub(crate) fn line(
        &self,
        key: &StreamKey,
        names: &Names,
        frame: &Frame<'_>,
    ) -> Option<LogLine> {
        if frame.process_name().is_some() || frame.time < self.since || frame.time > self.until {
            return None;
        }
        let gap = frame.gap();
        let (text, raw) = match gap {
            Some(gap) => {
                let lines = if gap.lines == 1 { "line" } else { "lines" };
                let text = format!(
                    "… {} {lines} ({} bytes) dropped: log budget full …",
                    gap.lines, gap.bytes
                );
                (text, None)
            }
            None => match std::str::from_utf8(frame.payload) {
                Ok(text) => (text.to_owned(), None),
                Err(_) => (
                    String::from_utf8_lossy(frame.payload).into_owned(),
                    Some(STANDARD.encode(frame.payload)),
                ),
            },
        };
        if self.grep.as_ref().is_some_and(|grep| !grep.is_match(&text)) {
            return None;
        }
        let stream = match frame.stream {
            Kind::Stdout if gap.is_none() => Stream::Stdout,
            Kind::Stderr if gap.is_none() => Stream::Stderr,
            _ => Stream::Berth,
        };
        Some(LogLine {
            time_nanos: frame.time,
            instance: key.instance.clone(),
            start: key.start,
            process: names.of(frame.process),
            stream,
            text,
            raw,
            partial: frame.is_partial(),
            gap_lines: gap.map_or(0, |gap| gap.lines),
        })
    }
}

/// What to say where bytes are missing in the middle of a stream.
pub(crate) fn hole(key: &StreamKey, time_nanos: u64, bytes: u64) -> LogLine {
    LogLine {
        time_nanos,
        instance: key.instance.clone(),
        start: key.start,
        process: "berth".to_owned(),
        stream: Stream::Berth,
        text: format!("… {bytes} bytes of this log are not kept any more …"),
        raw: None,
        partial: false,
        gap_lines: 0,
    }
}
