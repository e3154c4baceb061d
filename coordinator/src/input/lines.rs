//! Where the lines of a file begin: reads around the places that are asked for, not the whole file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use berth_model::job::shards::Lines;

/// Bytes per read.
const BLOCK: u64 = 64 * 1024;

/// A file of known size.
pub(super) struct FileLines {
    file: File,
    size: u64,
}

impl FileLines {
    pub(super) fn open(path: &Path, size: u64) -> io::Result<Self> {
        let file = File::open(path)?;
        Ok(Self { file, size })
    }

    fn read(&self, from: u64, to: u64) -> io::Result<Vec<u8>> {
        let length = usize::try_from(to - from).map_err(io::Error::other)?;
        let mut block = vec![0; length];
        self.file.read_exact_at(&mut block, from)?;
        Ok(block)
    }
}

impl Lines for FileLines {
    type Error = io::Error;

    fn at_or_after(&mut self, at: u64) -> io::Result<u64> {
        // A line begins behind each newline, so the newline may be the byte before.
        let mut from = at.saturating_sub(1);
        while from < self.size {
            let to = (from + BLOCK).min(self.size);
            let block = self.read(from, to)?;
            if let Some(found) = block.iter().position(|byte| *byte == b'\n') {
                return Ok(from + found as u64 + 1);
            }
            from = to;
        }
        Ok(self.size)
    }

    fn before(&mut self, at: u64) -> io::Result<u64> {
        let mut to = at.saturating_sub(1);
        while to > 0 {
            let from = to.saturating_sub(BLOCK);
            let block = self.read(from, to)?;
            if let Some(found) = block.iter().rposition(|byte| *byte == b'\n') {
                return Ok(from + found as u64 + 1);
            }
            to = from;
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(text: &[u8]) -> (tempfile::NamedTempFile, FileLines) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let lines = FileLines::open(file.path(), text.len() as u64).unwrap();
        (file, lines)
    }

    #[test]
    fn a_newline_is_found_over_many_blocks() {
        let block = usize::try_from(BLOCK).unwrap();
        let text = [vec![b'x'; 3 * block], b"\n".to_vec(), vec![b'y'; 3 * block]].concat();
        let (_file, mut lines) = lines(&text);
        let begin = 3 * BLOCK + 1;
        for at in [1, BLOCK, begin] {
            assert_eq!(lines.at_or_after(at).unwrap(), begin);
        }
        assert_eq!(lines.at_or_after(begin + 1).unwrap(), 6 * BLOCK + 1);
        assert_eq!(lines.before(6 * BLOCK).unwrap(), begin);
        assert_eq!(lines.before(begin).unwrap(), 0);
    }

    proptest! {
        #[test]
        fn beginnings_are_those_of_the_text(text in "[a\n]{1,60}", at in 1..60u64) {
            let text = text.into_bytes();
            let size = text.len() as u64;
            prop_assume!(at <= size);
            let begins = |p: u64| p == 0 || text[usize::try_from(p).unwrap() - 1] == b'\n';
            let (_file, mut lines) = lines(&text);
            let after = (at..size).find(|p| begins(*p)).unwrap_or(size);
            prop_assert_eq!(lines.at_or_after(at).unwrap(), after);
            let before = (0..at).rev().find(|p| begins(*p)).unwrap();
            prop_assert_eq!(lines.before(at).unwrap(), before);
        }
    }
}
