//! How an input is cut into shards: pure decisions; who reads the bytes is the caller's business.
//!
//! A file is cut between lines into parts of nearly equal size; put together in the order of their
//! indices they are the file again, byte for byte. A folder's files are dealt out whole, so that each
//! shard gets about as many bytes. There are never more shards than lines or files: an input with less
//! gives fewer shards than asked for, and an empty one gives one empty shard.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::digest::BlobDigest;
use crate::job::{Piece, ShardInput};

/// Longest name of an input file, in bytes, and of each part of it.
const MAX_NAME: usize = 1_024;
const MAX_PART: usize = 255;

/// Where the lines of a file begin. A file ends a line whether or not its last byte is a newline.
pub trait Lines {
    /// What can go wrong with reading.
    type Error;
    /// The first beginning of a line at `at` or behind it; the file's size if there is none.
    fn at_or_after(&mut self, at: u64) -> Result<u64, Self::Error>;
    /// The last beginning of a line before `at`, which is not 0.
    fn before(&mut self, at: u64) -> Result<u64, Self::Error>;
}

/// One file of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFile {
    /// Relative path in the input folder.
    pub name: String,
    /// Its content.
    pub blob: BlobDigest,
    /// Its size.
    pub bytes: u64,
}

/// Cuts a file into at most `wanted` shards between its lines. Errors: those of reading.
pub fn of_file<L: Lines>(
    blob: BlobDigest,
    bytes: u64,
    wanted: u32,
    lines: &mut L,
) -> Result<Vec<ShardInput>, L::Error> {
    let mut starts = cuts(bytes, wanted, lines)?;
    starts.insert(0, 0);
    let ends = starts.iter().skip(1).copied().chain([bytes]);
    Ok(starts
        .iter()
        .zip(ends)
        .map(|(start, end)| ShardInput {
            folder: false,
            pieces: piece(String::new(), blob, *start, end - start),
        })
        .collect())
}

/// Deals out a folder's files to at most `wanted` shards.
pub fn of_folder(files: &[InputFile], wanted: u32) -> Vec<ShardInput> {
    let count = (wanted.max(1) as usize).min(files.len().max(1));
    let mut largest: Vec<&InputFile> = files.iter().collect();
    largest.sort_by_key(|file| (Reverse(file.bytes), &file.name));
    let mut shards: Vec<(u64, Vec<&InputFile>)> = vec![(0, Vec::new()); count];
    for file in largest {
        // The least loaded one; of empty files each gets as many.
        let least = shards
            .iter_mut()
            .min_by_key(|(bytes, files)| (*bytes, files.len()));
        if let Some((bytes, files)) = least {
            *bytes = bytes.saturating_add(file.bytes);
            files.push(file);
        }
    }
    shards
        .into_iter()
        .map(|(_, mut files)| {
            files.sort_by_key(|file| &file.name);
            ShardInput {
                folder: true,
                pieces: files.into_iter().map(whole).collect(),
            }
        })
        .collect()
}

fn whole(file: &InputFile) -> Piece {
    Piece {
        name: file.name.clone(),
        blob: file.blob,
        offset: 0,
        bytes: file.bytes,
    }
}

fn piece(name: String, blob: BlobDigest, offset: u64, bytes: u64) -> Vec<Piece> {
    let piece = Piece {
        name,
        blob,
        offset,
        bytes,
    };
    if bytes == 0 { Vec::new() } else { vec![piece] }
}

/// Where every shard but the first begins: strictly rising beginnings of lines.
fn cuts<L: Lines>(size: u64, wanted: u32, lines: &mut L) -> Result<Vec<u64>, L::Error> {
    let mut cuts: Vec<u64> = Vec::new();
    let mut last = 0;
    for n in 1..u64::from(wanted) {
        let share = u128::from(size) * u128::from(n) / u128::from(wanted);
        let at = u64::try_from(share).unwrap_or(size).max(last + 1);
        last = if at >= size {
            size
        } else {
            lines.at_or_after(at)?
        };
        cuts.push(last);
    }
    // Where long lines pushed cuts to the end, earlier lines make room for them.
    let mut limit = size;
    for cut in cuts.iter_mut().rev() {
        if *cut >= limit {
            *cut = if limit == 0 { 0 } else { lines.before(limit)? };
        }
        limit = *cut;
    }
    cuts.retain(|cut| *cut > 0);
    Ok(cuts)
}

/// Why the files cannot lie in one folder; none if they can.
pub fn misfit(files: &[InputFile]) -> Option<String> {
    let names: BTreeSet<&str> = files.iter().map(|file| file.name.as_str()).collect();
    if names.len() < files.len() {
        return Some("two files of the input have the same name".to_owned());
    }
    for name in &names {
        if !is_relative(name) {
            return Some(format!(
                "{name:?} is not the name of a file in a folder: expected a relative path with '/', \
                 without '.', '..' and control characters, of at most {MAX_NAME} bytes"
            ));
        }
        let folders = name.match_indices('/').map(|(at, _)| &name[..at]);
        if let Some(folder) = folders.into_iter().find(|folder| names.contains(folder)) {
            return Some(format!("{folder:?} is a file and a folder of the input"));
        }
    }
    None
}

fn is_relative(name: &str) -> bool {
    name.len() <= MAX_NAME
        && !name.chars().any(char::is_control)
        && name
            .split('/')
            .all(|part| !matches!(part, "" | "." | "..") && part.len() <= MAX_PART)
}

#[cfg(test)]
mod tests;
