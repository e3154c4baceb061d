//! Protocol buffers as text: just enough of a writer.

use std::fmt::Write;

/// A message that is being written.
#[derive(Debug, Default)]
pub(super) struct Message {
    text: String,
    depth: usize,
}

impl Message {
    /// The whole text.
    pub(super) fn finish(self) -> String {
        self.text
    }

    /// A string or bytes field.
    pub(super) fn text(&mut self, name: &str, value: &str) {
        self.line(&format!("{name}: {}", quoted(value.as_bytes())));
    }

    /// An integer field.
    pub(super) fn integer(&mut self, name: &str, value: i64) {
        self.line(&format!("{name}: {value}"));
    }

    /// A boolean field.
    pub(super) fn boolean(&mut self, name: &str, value: bool) {
        self.line(&format!("{name}: {value}"));
    }

    /// A field that is a message.
    pub(super) fn message(&mut self, name: &str, fill: impl FnOnce(&mut Self)) {
        self.line(&format!("{name} {{"));
        self.depth += 1;
        fill(self);
        self.depth -= 1;
        self.line("}");
    }

    fn line(&mut self, line: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{:1$}{line}", "", 2 * self.depth);
    }
}

/// In quotes, with everything escaped that is not printable ASCII. Octal escapes have all their three digits, so
/// that a digit which follows is not taken for theirs.
fn quoted(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for byte in bytes {
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            b' '..=b'~' => out.push(char::from(*byte)),
            _ => {
                let _ = write!(out, "\\{byte:03o}");
            }
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a field holds.
    #[derive(Debug, Clone, PartialEq)]
    pub(crate) enum Value {
        Bytes(Vec<u8>),
        Word(String),
        Message(Vec<(String, Value)>),
    }

    /// Reads the text format as protobuf's own parser does, as far as it is written here.
    pub(crate) fn parse(text: &str) -> Vec<(String, Value)> {
        let mut rest = text.as_bytes();
        let fields = fields(&mut rest);
        assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(rest));
        fields
    }

    fn skip(rest: &mut &[u8]) {
        while rest.first().is_some_and(u8::is_ascii_whitespace) {
            *rest = &rest[1..];
        }
    }

    fn word(rest: &mut &[u8]) -> String {
        let end = rest
            .iter()
            .position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')))
            .unwrap_or(rest.len());
        assert!(end > 0, "{:?}", String::from_utf8_lossy(rest));
        let word = String::from_utf8(rest[..end].to_vec()).unwrap();
        *rest = &rest[end..];
        skip(rest);
        word
    }

    fn fields(rest: &mut &[u8]) -> Vec<(String, Value)> {
        let mut found = Vec::new();
        skip(rest);
        while rest.first().is_some_and(|b| *b != b'}') {
            let name = word(rest);
            let value = match rest[0] {
                b'{' => {
                    *rest = &rest[1..];
                    let inner = fields(rest);
                    assert_eq!(rest[0], b'}');
                    *rest = &rest[1..];
                    Value::Message(inner)
                }
                b':' => {
                    *rest = &rest[1..];
                    skip(rest);
                    if rest[0] == b'"' {
                        Value::Bytes(string(rest))
                    } else {
                        Value::Word(word(rest))
                    }
                }
                other => panic!("{other}"),
            };
            found.push((name, value));
            skip(rest);
        }
        found
    }

    fn string(rest: &mut &[u8]) -> Vec<u8> {
        *rest = &rest[1..];
        let mut out = Vec::new();
        loop {
            let byte = rest[0];
            *rest = &rest[1..];
            match byte {
                b'"' => return out,
                b'\n' => panic!("a line ends within a string"),
                b'\\' => out.push(escape(rest)),
                byte => out.push(byte),
            }
        }
    }

    fn escape(rest: &mut &[u8]) -> u8 {
        let octal = rest
            .iter()
            .take(3)
            .take_while(|b| matches!(b, b'0'..=b'7'))
            .count();
        if octal > 0 {
            let digits = std::str::from_utf8(&rest[..octal]).unwrap();
            let byte = u8::from_str_radix(digits, 8).unwrap();
            *rest = &rest[octal..];
            return byte;
        }
        let byte = match rest[0] {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b @ (b'"' | b'\\') => b,
            other => panic!("\\{}", char::from(other)),
        };
        *rest = &rest[1..];
        byte
    }

    proptest! {
        #[test]
        fn every_byte_string_comes_back(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let text = quoted(&bytes);
            prop_assert!(text.bytes().all(|b| (b' '..=b'~').contains(&b)));
            prop_assert_eq!(string(&mut text.as_bytes()), bytes);
        }

        #[test]
        fn every_message_comes_back(
            text in "\\PC{0,20}[\"\\\\\n\t\r{}:0-9é\u{1F600}]{0,20}",
            number: i64,
            flag: bool,
        ) {
            let mut root = Message::default();
            root.message("a", |a| {
                a.text("t", &text);
                a.message("b", |b| b.integer("n", number));
                a.text("t", &text);
            });
            root.boolean("f", flag);
            let string = |name: &str| (name.to_owned(), Value::Bytes(text.clone().into_bytes()));
            let word = |name: &str, word: String| (name.to_owned(), Value::Word(word));
            prop_assert_eq!(parse(&root.finish()), vec![
                ("a".to_owned(), Value::Message(vec![
                    string("t"),
                    ("b".to_owned(), Value::Message(vec![word("n", number.to_string())])),
                    string("t"),
                ])),
                word("f", flag.to_string()),
            ]);
        }
    }
}
