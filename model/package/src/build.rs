//! Folder to archive.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use berth_model::digest::BlobDigest;
use berth_model::manifest::{self, Manifest};

use crate::archive::{self, Contents};
use crate::block::Pool;
use crate::check::{self, Summary};
use crate::error::{PackageError, Refused};
use crate::hash::Hashing;
use crate::header::{self, BLOCK};
use crate::index::{Entry, EntryKind, Index};
use crate::limits::Limits;
use crate::pax;
use crate::walk::{Source, SourceKind, walk};

/// zstd's default: weights hardly compress better with more effort.
const LEVEL: i32 = 3;

/// Packs the folder `dir` into the archive `out`, which appears complete or not at all. The same
/// content gives the same archive. Errors: the folder breaks a rule, or reading or writing fails.
pub fn build(dir: &Path, out: &Path) -> Result<Summary, PackageError> {
    build_with_progress(dir, out, &mut |_, _| {})
}

/// [`build`], calling `progress(done, total)` with bytes of files as it goes.
pub fn build_with_progress(
    dir: &Path,
    out: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Summary, PackageError> {
    let manifest = read_manifest(dir)?;
    let (index, packed) = write(dir, out, Limits::default(), progress, |index| {
        Ok(check::names(&manifest, index)?)
    })?;
    Ok(check::inspection(Contents { index, manifest }, packed.blob, packed.bytes).summary)
}

/// A folder that was packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// BLAKE3 of the archive's bytes.
    pub blob: BlobDigest,
    /// The archive's length.
    pub bytes: u64,
}

/// Packs any folder, without a manifest, under the rules and in the format of packages: the same content
/// gives the same archive, and no link leads out of it. `out` appears complete or not at all.
pub fn pack_folder(dir: &Path, out: &Path, limits: Limits) -> Result<Packed, PackageError> {
    write(dir, out, limits, &mut |_, _| {}, |_| Ok(())).map(|(_, packed)| packed)
}

/// Packs a folder; `accept` has the last word before the archive appears.
fn write(
    dir: &Path,
    out: &Path,
    limits: Limits,
    progress: &mut dyn FnMut(u64, u64),
    accept: impl FnOnce(&Index) -> Result<(), PackageError>,
) -> Result<(Index, Packed), PackageError> {
    let sources = walk(dir, limits)?;
    let temp = TempFile::beside(dir, out)?;
    let doing = format!("write {}", out.display());
    let file = File::create(&temp.0).map_err(PackageError::io(doing.as_str()))?;
    let hashed = Hashed {
        inner: BufWriter::new(file),
        hasher: blake3::Hasher::new(),
        bytes: 0,
    };
    let mut encoder =
        zstd::Encoder::new(hashed, LEVEL).map_err(PackageError::io(doing.as_str()))?;
    encoder
        .include_checksum(true)
        .map_err(PackageError::io(doing.as_str()))?;
    let index = pack(dir, sources, &mut encoder, &doing, progress)?;
    let mut hashed = encoder.finish().map_err(PackageError::io(doing.as_str()))?;
    hashed
        .inner
        .flush()
        .map_err(PackageError::io(doing.as_str()))?;
    accept(&index)?;
    // Not synced: it can be made again, and its digest tells whether it is whole.
    fs::rename(&temp.0, out).map_err(PackageError::io(doing.as_str()))?;
    let blob = BlobDigest::from_bytes(*hashed.hasher.finalize().as_bytes());
    let bytes = hashed.bytes;
    Ok((index, Packed { blob, bytes }))
}

fn read_manifest(dir: &Path) -> Result<Manifest, PackageError> {
    let path = dir.join(manifest::FILE_NAME);
    let doing = || format!("read {}", path.display());
    let metadata = match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && dir.is_dir() => {
            return Err(Refused::Manifest {
                problem: "is missing",
            }
            .into());
        }
        other => other.map_err(PackageError::io(doing()))?,
    };
    if !metadata.is_file() {
        return Err(Refused::Manifest {
            problem: "is not a file",
        }
        .into());
    }
    if metadata.len() > manifest::MAX_BYTES as u64 {
        return Err(Refused::Manifest {
            problem: "is too long",
        }
        .into());
    }
    check::manifest(&fs::read(&path).map_err(PackageError::io(doing()))?)
}

/// Writes the tar stream, and makes the index of the very bytes written.
fn pack(
    dir: &Path,
    sources: Vec<Source>,
    out: &mut impl Write,
    doing: &str,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Index, PackageError> {
    let total = sources
        .iter()
        .map(|source| match source.kind {
            SourceKind::File { size, .. } => size,
            _ => 0,
        })
        .sum();
    std::thread::scope(|scope| {
        let hashing = Hashing::start(scope);
        let mut packer = Packer {
            dir,
            out,
            doing,
            hashing: &hashing,
            pool: Pool::new(),
            done: 0,
            total,
            progress,
        };
        let entries = sources
            .into_iter()
            .map(|source| packer.entry(source))
            .collect::<Result<Vec<_>, PackageError>>()?;
        packer.write(&[0; 2 * BLOCK])?;
        Ok(Index::new(archive::finish(entries, hashing.finish())))
    })
}

struct Packer<'a, 'scope, W> {
    dir: &'a Path,
    out: &'a mut W,
    doing: &'a str,
    hashing: &'a Hashing<'scope>,
    pool: Pool,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl<W: Write> Packer<'_, '_, W> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), PackageError> {
        self.out
            .write_all(bytes)
            .map_err(PackageError::io(self.doing))
    }

    fn entry(&mut self, Source { path, kind }: Source) -> Result<Entry, PackageError> {
        let kind = match kind {
            SourceKind::Dir => {
                self.header(b'5', &format!("{path}/"), "", 0o755, 0)?;
                EntryKind::Dir
            }
            SourceKind::Link { target } => {
                self.header(b'2', &path, &target, 0o777, 0)?;
                EntryKind::Link { target }
            }
            SourceKind::File { executable, size } => {
                let mode = if executable { 0o755 } else { 0o644 };
                self.header(b'0', &path, "", mode, size)?;
                self.data(&path, size)?;
                let hash = blake3::Hash::from_bytes([0; 32]);
                EntryKind::File {
                    executable,
                    size,
                    hash,
                    chunks: Vec::new(),
                }
            }
        };
        Ok(Entry { path, kind })
    }

    fn header(
        &mut self,
        kind: u8,
        path: &str,
        link: &str,
        mode: u32,
        size: u64,
    ) -> Result<(), PackageError> {
        if let Some(bytes) = header::write(kind, path, link, mode, size) {
            return self.write(&bytes);
        }
        let mut records = Vec::new();
        pax::write(&mut records, "path", path);
        pax::write(&mut records, "linkpath", link);
        let length = records.len() as u64;
        records.resize(records.len().next_multiple_of(BLOCK), 0);
        // Short placeholders always fit, so both headers are there.
        for (kind, name, mode, size, data) in [
            (b'x', "pax", 0o644, length, &records[..]),
            (kind, "long", mode, size, &[]),
        ] {
            if let Some(bytes) = header::write(kind, name, "", mode, size) {
                self.write(&bytes)?;
            }
            self.write(data)?;
        }
        Ok(())
    }

    fn data(&mut self, path: &str, size: u64) -> Result<(), PackageError> {
        let full = self.dir.join(path);
        let reading = || format!("read {}", full.display());
        // A file that became a link meanwhile must not lead us elsewhere, nor a FIFO block us.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(&full)
            .map_err(PackageError::io(reading()))?;
        let changed = || Refused::Changed {
            path: path.to_owned(),
        };
        let metadata = file.metadata().map_err(PackageError::io(reading()))?;
        if !metadata.is_file() || metadata.len() != size {
            return Err(changed().into());
        }
        self.hashing.file(size);
        let mut left = size;
        loop {
            // One read beyond the size sees whether the file has grown.
            let block = self
                .pool
                .fill(|buffer| file.read(buffer))
                .map_err(PackageError::io(reading()))?;
            if block.is_empty() {
                break;
            }
            left = left.checked_sub(block.len() as u64).ok_or_else(changed)?;
            let length = block.len();
            self.hashing.data(std::sync::Arc::clone(&block), 0..length);
            self.write(&block)?;
            self.done += length as u64;
            (self.progress)(self.done, self.total);
        }
        if left > 0 {
            return Err(changed().into());
        }
        // Below the block size, so the cast keeps it.
        let padding = (size.next_multiple_of(BLOCK as u64) - size) as usize;
        self.write(&[0; BLOCK][..padding])
    }
}

/// A file beside its later place, removed unless it got there.
struct TempFile(PathBuf);

impl TempFile {
    fn beside(dir: &Path, out: &Path) -> Result<Self, PackageError> {
        let folder = match out.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let real = |path: &Path| {
            path.canonicalize()
                .map_err(PackageError::io(format!("find {}", path.display())))
        };
        let folder = real(folder)?;
        if folder.starts_with(real(dir)?) {
            return Err(Refused::OutputInside {
                path: out.display().to_string(),
            }
            .into());
        }
        let name = out.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self(
            folder.join(format!(".{name}.{}.tmp", std::process::id())),
        ))
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // Renamed away, or never made, or nothing can be done about it.
        let _ = fs::remove_file(&self.0);
    }
}

/// Hashes and counts what is written.
struct Hashed<W> {
    inner: W,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
