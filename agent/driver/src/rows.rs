//! Rows: the lines of a JSONL file, in batches.

use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;

use crate::failure::{Failure, beginning};

/// The longest row.
pub(crate) const MAX_ROW: usize = 64 << 20;

/// Bytes of rows at which a batch is sent though it could hold more rows.
const BATCH_BYTES: usize = 4 << 20;

/// How much of a row is shown.
pub(crate) const SHOWN: usize = 200;

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// Its line in the file, from 1.
    pub(crate) number: u64,
    /// Its JSON.
    pub(crate) text: String,
}

/// Rows that go into one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Its place among the batches, from 0.
    pub(crate) index: u64,
    /// Never empty.
    pub(crate) rows: Vec<Row>,
}

/// Reads a file's rows. Lines of nothing but spaces are no rows.
pub(crate) struct Rows<R> {
    path: PathBuf,
    reader: R,
    most: usize,
    line: u64,
    batches: u64,
}

impl<R: BufRead> Rows<R> {
    /// Reads `reader` in batches of at most `most` rows; `path` is for errors.
    pub(crate) fn new(path: &Path, reader: R, most: usize) -> Self {
        Self {
            path: path.to_owned(),
            reader,
            most,
            line: 0,
            batches: 0,
        }
    }

    /// The next batch; none at the end.
    pub(crate) fn batch(&mut self) -> Result<Option<Batch>, Failure> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while rows.len() < self.most && bytes < BATCH_BYTES {
            let Some(row) = self.row()? else { break };
            bytes += row.text.len();
            rows.push(row);
        }
        if rows.is_empty() {
            return Ok(None);
        }
        let index = self.batches;
        self.batches += 1;
        Ok(Some(Batch { index, rows }))
    }

    fn row(&mut self) -> Result<Option<Row>, Failure> {
        loop {
            let mut line = Vec::new();
            // One byte more than the longest row and its end.
            let mut limited = self.reader.by_ref().take(MAX_ROW as u64 + 2);
            let read = limited
                .read_until(b'\n', &mut line)
                .map_err(Failure::read(&self.path))?;
            if read == 0 {
                return Ok(None);
            }
            self.line += 1;
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            if line.len() > MAX_ROW {
                let problem = format!("is longer than {} MiB", MAX_ROW >> 20);
                return Err(self.wrong(problem, &line));
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            return self.check(line).map(Some);
        }
    }

    fn check(&self, line: Vec<u8>) -> Result<Row, Failure> {
        let text = match String::from_utf8(line) {
            Ok(text) => text,
            Err(error) => return Err(self.wrong("is not UTF-8".to_owned(), error.as_bytes())),
        };
        match serde_json::from_str::<IgnoredAny>(&text) {
            Ok(_) => Ok(Row {
                number: self.line,
                text: text.trim().to_owned(),
            }),
            Err(error) => {
                let problem = format!("is not JSON (column {}: {error})", error.column());
                Err(self.wrong(problem, text.as_bytes()))
            }
        }
    }

    fn wrong(&self, problem: String, line: &[u8]) -> Failure {
        let text = String::from_utf8_lossy(&line[..line.len().min(4 * SHOWN)]);
        Failure::Row {
            path: self.path.clone(),
            row: self.line,
            problem,
            begin: beginning(&text, SHOWN),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &[u8], most: usize) -> Result<Vec<Vec<u64>>, Failure> {
        let mut rows = Rows::new(Path::new("in"), text, most);
        let mut batches = Vec::new();
        while let Some(batch) = rows.batch()? {
            assert_eq!(batch.index, batches.len() as u64);
            batches.push(batch.rows.iter().map(|row| row.number).collect());
        }
        Ok(batches)
    }

    #[test]
    fn blank_lines_are_no_rows_and_the_last_needs_no_end() {
        assert_eq!(
            read(b"1\n\n \r\n{\"a\":[1]}\r\n\"x\"", 2).unwrap(),
            [vec![1, 4], vec![5]]
        );
        assert!(read(b"\n\n", 2).unwrap().is_empty());
        assert!(read(b"", 2).unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_row_and_beginning() {
        let told = read(b"1\n{\"a\":}\n", 9).unwrap_err();
        assert_eq!(told.code(), 3);
        let told = told.to_string();
        assert!(told.contains("row 2 of \"in\" is not JSON"), "{told}");
        assert!(told.ends_with("{\"a\":}"), "{told}");
        let told = read(b"\"\xff\"", 9).unwrap_err().to_string();
        assert!(told.contains("row 1 of \"in\" is not UTF-8"), "{told}");
        assert!(read(b"1 2\n", 9).is_err());
    }

    proptest! {
        #[test]
        fn every_row_comes_once_and_in_order(
            rows in prop::collection::vec(prop_oneof![Just(""), Just("1"), Just("[2, 3]"), Just("\"ä\"")], 0..50),
            most in 1usize..9,
        ) {
            let text = rows.join("\n");
            let batches = read(text.as_bytes(), most).unwrap();
            prop_assert!(batches.iter().all(|batch| !batch.is_empty() && batch.len() <= most));
            let found: Vec<u64> = batches.into_iter().flatten().collect();
            let expected: Vec<u64> = (1..).zip(&rows).filter(|(_, row)| !row.is_empty()).map(|(n, _)| n).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, most in 1usize..4) {
            let _ = read(&bytes, most);
        }
    }
}
