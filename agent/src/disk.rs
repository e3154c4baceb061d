//! Room on the disk of the agent's data: looked after, and told as a condition when there is too little.

mod watch;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use berth_model::node::Condition;
use berth_model::time::Bytes;
use tokio::sync::Notify;

pub(crate) use watch::watch;

/// A file that is given up so that the ledger can still be written when the disk is full: what is to be stopped or
/// deleted to make room must not need room itself.
pub(crate) const RESERVE: &str = "reserve";

/// Bytes of the reserve, unless the disk is very small.
const RESERVE_BYTES: u64 = 1 << 20;

/// What a file system has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Room {
    /// Bytes in all.
    pub(crate) total: u64,
    /// Bytes that the agent can still have.
    pub(crate) free: u64,
    /// How many files there can be in all; zero where there is no limit.
    pub(crate) files: u64,
    /// How many more files there can be.
    pub(crate) free_files: u64,
}

impl Room {
    /// Of the file system on which a path lies; none where the system does not tell.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let stat = rustix::fs::statvfs(path).ok()?;
        Some(Self {
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            files: stat.f_files,
            free_files: stat.f_favail,
        })
    }
}

/// Whether the system refused something because there is no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// How much room there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Level {
    /// Enough.
    #[default]
    Well,
    /// Little: what can be done without goes.
    Low,
    /// None.
    Full,
}

/// Where the levels begin, in free bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marks {
    pub(crate) low: u64,
    pub(crate) full: u64,
}

/// Free files below which a disk counts as full: a package alone has more.
const FEW_FILES: u64 = 64;

impl Marks {
    /// For a disk of so many bytes: a tenth, at most 2 GiB, counts as low if nothing else is configured; an eighth of
    /// that, at most 64 MiB, as full.
    fn of(total: u64, low: Option<u64>) -> Self {
        let low = low.unwrap_or((total / 10).min(2 << 30));
        Self {
            low,
            full: (low / 8).min(64 << 20),
        }
    }

    /// What there is now. A level is left only when there is clearly more room, so that it does not come and go;
    /// `refused`: a write was refused, and none has succeeded since.
    fn judge(self, before: Level, room: Room, refused: bool) -> Level {
        let few_files = room.files > 0 && room.free_files < FEW_FILES.min(room.files / 8);
        let still_full = before == Level::Full && room.free < 2 * self.full;
        let still_low = before != Level::Well && room.free < self.low + self.low / 8;
        if refused || few_files || room.free < self.full || still_full {
            Level::Full
        } else if room.free < self.low || still_low {
            Level::Low
        } else {
            Level::Well
        }
    }
}

/// The disk of an agent's data. Shared; no lock is held while waiting.
#[derive(Debug)]
pub(crate) struct Disk {
    data: PathBuf,
    low: Option<u64>,
    /// What was refused for want of room.
    refused: Mutex<Option<PathBuf>>,
    wake: Notify,
}

impl Disk {
    /// The disk of that folder; `low` is what counts as little room.
    pub(crate) fn new(data: &Path, low: Option<Bytes>) -> Self {
        Self {
            data: data.to_owned(),
            low: low.map(|bytes| bytes.0),
            refused: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// A write was refused for want of room: looked at at once.
    pub(crate) fn refused(&self, path: &Path) {
        *self.last_refused() = Some(path.to_owned());
        self.wake.notify_one();
    }

    fn last_refused(&self) -> std::sync::MutexGuard<'_, Option<PathBuf>> {
        // A panic elsewhere does not make the path wrong.
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn marks(&self, room: Room) -> Marks {
        Marks::of(room.total, self.low)
    }

    /// How much is missing for something of `bytes`, such that the disk is not full afterwards. Blocks for as long as
    /// the file system does.
    pub(crate) fn missing(&self, bytes: u64) -> u64 {
        let room = Room::of(&self.data).unwrap_or_default();
        if room.total == 0 {
            return 0;
        }
        let needed = bytes.saturating_add(self.marks(room).full);
        needed.saturating_sub(room.free)
    }

    /// What is free and where, for people.
    pub(crate) fn says(&self) -> String {
        let room = Room::of(&self.data).unwrap_or_default();
        let files = match room.files {
            0 => String::new(),
            _ if room.free_files < FEW_FILES => format!(" and room for {} files", room.free_files),
            _ => String::new(),
        };
        format!(
            "{} of {}{files} are free on the file system of {}",
            rough(room.free),
            rough(room.total),
            self.data.display()
        )
    }

    /// What people are told of a level; nothing of a disk that is well.
    fn condition(&self, level: Level) -> Option<Condition> {
        let (kind, message) = match level {
            Level::Well => return None,
            Level::Low => (
                Condition::DISK_LOW,
                format!(
                    "{}; packages that nothing uses are deleted. Make room before it is full",
                    self.says()
                ),
            ),
            Level::Full => {
                let refused = self.last_refused().clone();
                let refused =
                    refused.map(|path| format!("; {} could not be written", path.display()));
                (
                    Condition::DISK_FULL,
                    format!(
                        "{}{}. What runs goes on; nothing new is fetched, and log lines for which there is no room are \
                         counted instead of kept. Make room there, or move data_dir to a larger disk; the rest comes by \
                         itself",
                        self.says(),
                        refused.unwrap_or_default()
                    ),
                )
            }
        };
        Some(Condition {
            kind: kind.to_owned(),
            message,
        })
    }

    /// Whether something can be written again.
    fn probe(&self) -> bool {
        let probe = self.data.join(RESERVE).with_extension("probe");
        let written = reserve(&probe, self.reserve_bytes());
        let removed = std::fs::remove_file(&probe);
        written.and(removed).is_ok()
    }

    fn reserve_bytes(&self) -> u64 {
        let room = Room::of(&self.data).unwrap_or_default();
        RESERVE_BYTES.min(room.total / 64)
    }

    /// Makes the reserve if it is not there.
    fn make_reserve(&self) {
        let path = self.data.join(RESERVE);
        if path.exists() {
            return;
        }
        if let Err(error) = reserve(&path, self.reserve_bytes()) {
            tracing::debug!(%error, "no room for the reserve");
            let _ = std::fs::remove_file(&path);
        }
    }
}

/// A size as people say it.
pub(crate) fn rough(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = units.iter().find(|(_, shift)| bytes >> shift > 0);
    match unit {
        None => format!("{bytes} B"),
        Some((name, shift)) => {
            let tenths = (bytes >> (shift - 10)) * 10 / 1024;
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
    }
}

/// Bytes that are really there: holes would not be.
fn reserve(path: &Path, bytes: u64) -> io::Result<()> {
    use std::io::Write;
    let mut file = std::fs::File::create(path)?;
    let block = [0x5A; 4096];
    for _ in 0..bytes.div_ceil(block.len() as u64) {
        file.write_all(&block)?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn room(free: u64) -> Room {
        Room {
            total: 1000 * MIB,
            free,
            files: 10_000,
            free_files: 5_000,
        }
    }

    #[test]
    fn levels_come_at_once_and_go_with_a_margin() {
        let marks = Marks::of(1000 * MIB, None);
        assert_eq!((marks.low, marks.full), (100 * MIB, 12 * MIB + MIB / 2));
        let judge = |before, free| marks.judge(before, room(free), false);
        for (before, free, after) in [
            (Level::Well, 500 * MIB, Level::Well),
            (Level::Well, 99 * MIB, Level::Low),
            (Level::Low, 110 * MIB, Level::Low),
            (Level::Low, 113 * MIB, Level::Well),
            (Level::Well, 10 * MIB, Level::Full),
            (Level::Full, 20 * MIB, Level::Full),
            (Level::Full, 26 * MIB, Level::Low),
            (Level::Full, 500 * MIB, Level::Well),
        ] {
            assert_eq!(judge(before, free), after, "{before:?} {free}");
        }
    }

    #[test]
    fn what_was_refused_and_files_count_too() {
        let marks = Marks::of(1000 * MIB, Some(MIB));
        assert_eq!(marks.judge(Level::Well, room(500 * MIB), true), Level::Full);
        let files = Room {
            free_files: 3,
            ..room(500 * MIB)
        };
        assert_eq!(marks.judge(Level::Well, files, false), Level::Full);
        let endless = Room { files: 0, ..files };
        assert_eq!(marks.judge(Level::Well, endless, false), Level::Well);
        assert_eq!(Marks::of(100 << 40, None).low, 2 << 30);
    }

    #[test]
    fn the_reserve_has_its_size_and_conditions_say_where() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::new(dir.path(), None);
        disk.make_reserve();
        let made = dir.path().join(RESERVE).metadata().unwrap().len();
        assert!(made >= disk.reserve_bytes() && made > 0);
        assert!(disk.probe());
        assert_eq!(rough(1536 << 20), "1.5 GiB");
        assert_eq!(rough(1023), "1023 B");
        assert_eq!(disk.condition(Level::Well), None);
        disk.refused(Path::new("/x/y"));
        let full = disk.condition(Level::Full).unwrap();
        assert_eq!(full.kind, Condition::DISK_FULL);
        assert!(full.message.contains("/x/y could not be written"));
        assert!(full.message.contains(&dir.path().display().to_string()));
        assert_eq!(disk.missing(0), 0);
        assert!(disk.missing(u64::MAX / 2) > 0);
    }
}
