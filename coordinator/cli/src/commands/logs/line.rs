//! One log line for people.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use berth_model::record::{LogLine, Stream};
use berth_model::time::Timestamp;

/// Renders lines, with a colour per instance on a terminal.
pub(super) struct Printer {
    colours: bool,
}

impl Printer {
    pub(super) fn new(colours: bool) -> Self {
        Self { colours }
    }

    /// `TIME INSTANCE/PROCESS STREAM | text`. Without colours (so not for a terminal) bytes that are not
    /// UTF-8 are written as they were; for a terminal, control characters are taken out.
    pub(super) fn render(&self, line: &LogLine) -> Vec<u8> {
        let time = Timestamp(line.time_nanos / 1_000_000).rfc3339();
        let who = format!("{}/{}", line.instance, line.process);
        let stream = match line.stream {
            Stream::Stdout => "out",
            Stream::Stderr => "err",
            Stream::Berth => "---",
        };
        let mut text = if self.colours {
            let colour = 31
                + who
                    .bytes()
                    .fold(0_u32, |sum, b| (sum * 31 + u32::from(b)) % 6);
            format!("{time} \u{1b}[{colour}m{who}\u{1b}[0m {stream} | ").into_bytes()
        } else {
            format!("{time} {who} {stream} | ").into_bytes()
        };
        match &line.raw {
            Some(raw) if !self.colours => {
                text.extend(
                    STANDARD
                        .decode(raw)
                        .unwrap_or_else(|_| line.text.clone().into_bytes()),
                );
            }
            _ if self.colours => {
                text.extend(
                    line.text
                        .replace(|c: char| c.is_control() && c != '\t', "\u{fffd}")
                        .bytes(),
                );
            }
            _ => text.extend(line.text.bytes()),
        }
        if line.partial {
            text.extend(" …".bytes());
        }
        text.push(b'\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> LogLine {
        LogLine {
            time_nanos: 1_000_000_000,
            instance: "web.1.0.1".parse().unwrap(),
            start: 1,
            process: "module".into(),
            stream: Stream::Stderr,
            text: "a\u{fffd}b".into(),
            raw: Some(STANDARD.encode(b"a\xffb")),
            partial: false,
            gap_lines: 0,
        }
    }

    #[test]
    fn bytes_are_kept_for_a_pipe() {
        let text = Printer::new(false).render(&line());
        assert_eq!(
            text,
            b"1970-01-01T00:00:01.000Z web.1.0.1/module err | a\xffb\n"
        );
    }

    #[test]
    fn a_terminal_gets_no_control_characters_of_the_module() {
        let evil = LogLine {
            text: "\u{1b}]0;owned\u{7}".into(),
            raw: None,
            ..line()
        };
        let text = String::from_utf8(Printer::new(true).render(&evil)).unwrap();
        assert!(
            !text.contains('\u{7}') && !text.contains("\u{1b}]"),
            "{text:?}"
        );
    }
}
