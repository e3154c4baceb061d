//! Reading server-sent events (WHATWG HTML, section 9.2).

use anyhow::{Context as _, Result};
use futures_util::{Stream, StreamExt};

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its kind; empty if not said.
    pub(crate) name: String,
    /// Its data; several lines are joined by newlines.
    pub(crate) data: String,
    /// The last id that was said, on this event or before.
    pub(crate) id: String,
}

/// Takes events out of a response's body.
pub(crate) struct Reader {
    body: std::pin::Pin<Box<dyn Stream<Item = reqwest::Result<Vec<u8>>> + Send>>,
    parser: Parser,
}

impl Reader {
    /// Reads the body of `response`.
    pub(crate) fn new(response: reqwest::Response) -> Self {
        let body = response
            .bytes_stream()
            .map(|chunk| chunk.map(|bytes| bytes.to_vec()));
        Self {
            body: Box::pin(body),
            parser: Parser::default(),
        }
    }

    /// The next event; none when the stream has ended.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(event) = self.parser.next() {
                return Ok(Some(event));
            }
            match self.body.next().await {
                Some(chunk) => self.parser.feed(&chunk.context("the stream broke off")?),
                None => return Ok(None),
            }
        }
    }
}

#[derive(Default)]
struct Parser {
    buffer: Vec<u8>,
    /// Where the next line begins; what lies before is done with.
    at: usize,
    pending: Event,
    has_data: bool,
}

impl Parser {
    fn feed(&mut self, chunk: &[u8]) {
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.extend_from_slice(chunk);
    }

    fn next(&mut self) -> Option<Event> {
        loop {
            let rest = self.buffer.get(self.at..)?;
            let length = rest.iter().position(|byte| *byte == b'\n')?;
            let line = String::from_utf8_lossy(&rest[..length])
                .trim_end_matches('\r')
                .to_owned();
            self.at += length + 1;
            if line.is_empty() {
                let id = self.pending.id.clone();
                let event = std::mem::replace(
                    &mut self.pending,
                    Event {
                        id,
                        ..Event::default()
                    },
                );
                if std::mem::take(&mut self.has_data) {
                    return Some(event);
                }
            } else {
                self.field(&line);
            }
        }
    }

    fn field(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => value.clone_into(&mut self.pending.name),
            "id" => value.clone_into(&mut self.pending.id),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.pending.data.push('\n');
                }
                self.pending.data.push_str(value);
            }
            // Comments (an empty name) and fields of later versions.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(chunks: &[&[u8]]) -> Vec<Event> {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        for chunk in chunks {
            parser.feed(chunk);
            while let Some(event) = parser.next() {
                events.push(event);
            }
        }
        events
    }

    const TEXT: &[u8] =
        b": hi\nevent: line\nid: 7\ndata: {\"a\":1}\n\nevent: end\r\ndata: x\ndata: y\r\n\r\n";

    #[test]
    fn events_have_name_data_and_id() {
        let events = all(&[TEXT]);
        assert_eq!(events.len(), 2);
        assert_eq!(
            (events[0].name.as_str(), events[0].id.as_str()),
            ("line", "7")
        );
        assert_eq!(
            (events[1].data.as_str(), events[1].id.as_str()),
            ("x\ny", "7")
        );
    }

    proptest! {
        #[test]
        fn chunk_borders_do_not_matter(cut in 0..TEXT.len()) {
            prop_assert_eq!(all(&[TEXT]), all(&[&TEXT[..cut], &TEXT[cut..]]));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            all(&[&bytes]);
        }
    }
}
