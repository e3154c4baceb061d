//! Reading an archive: tar headers and data, checked, hashed and handed to a sink.

use std::io::Read;

use berth_model::manifest::{self, Manifest};

use crate::error::{PackageError, Refused};
use crate::feed::Feed;
use crate::hash::{FileHash, Hashing};
use crate::header::{self, BLOCK, Header};
use crate::index::{Entry, EntryKind, Index};
use crate::limits::Limits;
use crate::tree::{NodeKind, Tree};
use crate::{check, path, pax};

/// Archivers fill up their last record, of twenty blocks, with zeros.
const MOST_PADDING: u64 = 20 * BLOCK as u64;

/// Takes what an archive holds, in the archive's order. Every path has been checked, and its folder
/// has been handed over before.
pub(crate) trait Sink {
    /// A folder.
    fn folder(&mut self, path: &str) -> Result<(), PackageError>;
    /// A file whose bytes follow.
    fn file(&mut self, path: &str, executable: bool, size: u64) -> Result<(), PackageError>;
    /// Bytes of the current file.
    fn data(&mut self, bytes: &[u8]) -> Result<(), PackageError>;
    /// The current file is complete.
    fn end_file(&mut self) -> Result<(), PackageError>;
    /// A link. Where it leads is not yet known to be inside.
    fn link(&mut self, path: &str, target: &str) -> Result<(), PackageError>;
}

/// Only checks.
pub(crate) struct Discard;

impl Sink for Discard {
    fn folder(&mut self, _: &str) -> Result<(), PackageError> {
        Ok(())
    }
    fn file(&mut self, _: &str, _: bool, _: u64) -> Result<(), PackageError> {
        Ok(())
    }
    fn data(&mut self, _: &[u8]) -> Result<(), PackageError> {
        Ok(())
    }
    fn end_file(&mut self) -> Result<(), PackageError> {
        Ok(())
    }
    fn link(&mut self, _: &str, _: &str) -> Result<(), PackageError> {
        Ok(())
    }
}

/// What an archive turned out to hold.
pub(crate) struct Contents {
    pub(crate) index: Index,
    pub(crate) manifest: Manifest,
}

/// Reads a whole archive into `sink`. When this returns without error the archive was complete, had
/// nothing after it, and its manifest and links are right.
pub(crate) fn read<R: Read + Send, S: Sink>(
    reader: R,
    limits: Limits,
    sink: &mut S,
) -> Result<Contents, PackageError> {
    std::thread::scope(|scope| {
        let feed = Feed::start(scope, reader, limits);
        let hashing = Hashing::start(scope);
        let mut archive = Archive {
            feed,
            hashing: &hashing,
            sink,
            tree: Tree::new(limits),
            entries: Vec::new(),
            manifest: None,
        };
        archive.entries()?;
        archive.tree.check_links()?;
        let Archive {
            entries, manifest, ..
        } = archive;
        let manifest = manifest.ok_or(Refused::Manifest {
            problem: "is missing",
        })?;
        let index = Index::new(finish(entries, hashing.finish()));
        check::names(&manifest, &index)?;
        Ok(Contents { index, manifest })
    })
}

/// Puts the hashes to their files; both are in the archive's order.
pub(crate) fn finish(mut entries: Vec<Entry>, hashes: Vec<FileHash>) -> Vec<Entry> {
    let mut hashes = hashes.into_iter();
    for entry in &mut entries {
        if let EntryKind::File { hash, chunks, .. } = &mut entry.kind
            && let Some((found, cut)) = hashes.next()
        {
            (*hash, *chunks) = (found, cut);
        }
    }
    entries
}

struct Archive<'a, 'scope, S> {
    feed: Feed,
    hashing: &'a Hashing<'scope>,
    sink: &'a mut S,
    tree: Tree,
    entries: Vec<Entry>,
    manifest: Option<Manifest>,
}

impl<S: Sink> Archive<'_, '_, S> {
    fn entries(&mut self) -> Result<(), PackageError> {
        let mut records = None;
        while let Some((at, mut header)) = self.header()? {
            let refuse = |problem: &str| Refused::Header {
                at,
                problem: problem.to_owned(),
            };
            if header.kind == b'x' {
                if records.is_some() || header.size > pax::MAX_BYTES {
                    return Err(refuse("extended headers in a row, or too long a one").into());
                }
                let bytes = self.small(header.size)?;
                let read = pax::read(&bytes).map_err(|problem| Refused::Header { at, problem })?;
                records = Some(read);
                continue;
            }
            if let Some(pax::Records { path, link }) = records.take() {
                header.path = path.unwrap_or(header.path);
                header.link = link.unwrap_or(header.link);
            }
            self.entry(&header, at)?;
        }
        if records.is_some() {
            return Err(Refused::Truncated.into());
        }
        Ok(())
    }

    /// The next header and its offset; nothing at the archive's proper end.
    fn header(&mut self) -> Result<Option<(u64, Header)>, PackageError> {
        let at = self.feed.offset;
        let mut bytes = [0; BLOCK];
        self.feed.exact(&mut bytes)?;
        if bytes == [0; BLOCK] {
            self.feed.exact(&mut bytes)?;
            self.end(&bytes)?;
            return Ok(None);
        }
        match header::read(&bytes) {
            Ok(header) => Ok(Some((at, header))),
            Err(problem) => Err(Refused::Header { at, problem }.into()),
        }
    }

    /// After the first zero block: a second one, zeros up to a full record, and the feed's end.
    fn end(&mut self, second: &[u8; BLOCK]) -> Result<(), PackageError> {
        let junk = Refused::Junk {
            what: "tar archive",
        };
        let mut padding = 0;
        if *second != [0; BLOCK] {
            return Err(junk.into());
        }
        while let Some((block, range)) = self.feed.next(u64::MAX)? {
            padding += range.len() as u64;
            if padding > MOST_PADDING || block[range].iter().any(|byte| *byte != 0) {
                return Err(junk.into());
            }
        }
        Ok(())
    }

    fn entry(&mut self, header: &Header, at: u64) -> Result<(), PackageError> {
        let kind = match header.kind {
            b'0' | 0 => None,
            b'1' => Some("hard link"),
            b'2' | b'5' => None,
            b'3' | b'4' => Some("device"),
            b'6' => Some("FIFO"),
            b'S' => Some("sparse file"),
            other => {
                let problem = format!("entries of type {:?} are not supported", char::from(other));
                return Err(Refused::Header { at, problem }.into());
            }
        };
        let folder = header.kind == b'5';
        let name = match header.path.strip_suffix(b"/") {
            Some(name) if folder => name,
            _ => &header.path,
        };
        let path = path::check(name)?.to_owned();
        if let Some(kind) = kind {
            return Err(Refused::Kind { path, kind }.into());
        }
        if header.mode & 0o7000 != 0 {
            return Err(Refused::Mode {
                path,
                mode: header.mode,
            }
            .into());
        }
        if header.size != 0 && matches!(header.kind, b'2' | b'5') {
            let problem = "a folder or link has a size".to_owned();
            return Err(Refused::Header { at, problem }.into());
        }
        match header.kind {
            b'5' => self.folder(path),
            b'2' => self.link(path, &header.link),
            _ => self.file(path, header),
        }
    }

    fn folder(&mut self, path: String) -> Result<(), PackageError> {
        self.tree.add(&path, NodeKind::Dir)?;
        self.sink.folder(&path)?;
        self.entries.push(Entry {
            path,
            kind: EntryKind::Dir,
        });
        Ok(())
    }

    fn link(&mut self, path: String, target: &[u8]) -> Result<(), PackageError> {
        let target = path::check_target(target)
            .map_err(|problem| Refused::Link {
                path: path.clone(),
                problem: crate::LinkProblem::Target(problem),
            })?
            .to_owned();
        self.tree.add(&path, NodeKind::Link { target: &target })?;
        self.sink.link(&path, &target)?;
        self.entries.push(Entry {
            path,
            kind: EntryKind::Link { target },
        });
        Ok(())
    }

    fn file(&mut self, path: String, header: &Header) -> Result<(), PackageError> {
        let size = header.size;
        let executable = header.mode & 0o100 != 0;
        self.tree.add(&path, NodeKind::File { size })?;
        self.sink.file(&path, executable, size)?;
        self.hashing.file(size);
        let mut text = (path == manifest::FILE_NAME).then(Vec::new);
        if text.is_some() && size > manifest::MAX_BYTES as u64 {
            return Err(Refused::Manifest {
                problem: "is too long",
            }
            .into());
        }
        let mut left = size;
        while left > 0 {
            let (block, range) = self.feed.next(left)?.ok_or(Refused::Truncated)?;
            let bytes = &block[range.clone()];
            left -= bytes.len() as u64;
            self.sink.data(bytes)?;
            if let Some(text) = &mut text {
                text.extend_from_slice(bytes);
            }
            self.hashing.data(block, range);
        }
        self.sink.end_file()?;
        self.padding(size)?;
        if let Some(text) = text {
            self.manifest = Some(check::manifest(&text)?);
        }
        let kind = EntryKind::File {
            executable,
            size,
            hash: blake3::Hash::from_bytes([0; 32]),
            chunks: Vec::new(),
        };
        self.entries.push(Entry { path, kind });
        Ok(())
    }

    /// A few bytes and their padding.
    fn small(&mut self, size: u64) -> Result<Vec<u8>, PackageError> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < size {
            let left = size - bytes.len() as u64;
            let (block, range) = self.feed.next(left)?.ok_or(Refused::Truncated)?;
            bytes.extend_from_slice(&block[range]);
        }
        self.padding(size)?;
        Ok(bytes)
    }

    fn padding(&mut self, size: u64) -> Result<(), PackageError> {
        let mut bytes = [0; BLOCK];
        // Below the block size, so the cast keeps it.
        let length = (size.next_multiple_of(BLOCK as u64) - size) as usize;
        self.feed.exact(&mut bytes[..length])?;
        if bytes.iter().any(|byte| *byte != 0) {
            return Err(Refused::Junk {
                what: "data of a file",
            }
            .into());
        }
        Ok(())
    }
}
