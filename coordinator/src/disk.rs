//! Room on the disk of the coordinator's data: told before there is none.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::control::Command;
use crate::edge::Edge;

/// Between looks.
const LOOK: Duration = Duration::from_secs(10);

/// A file that is given up by a coordinator that begins on a full disk: it writes down that it began, and what is deleted
/// to make room is written down, too.
const RESERVE: &str = "reserve";

/// Bytes of the reserve, unless the disk is very small.
const RESERVE_BYTES: u64 = 1 << 20;

/// How much room there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Level {
    /// Enough.
    #[default]
    Well,
    /// Little.
    Low,
    /// None to speak of.
    Full,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// How much room there is.
    pub level: Level,
    /// What is free and where, for people.
    pub says: String,
}

/// Total and free bytes of the file system of a folder.
fn room(data: &Path) -> std::io::Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(data)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok((bytes(stat.f_blocks), bytes(stat.f_bavail)))
}

fn reserve_bytes(total: u64) -> u64 {
    RESERVE_BYTES.min(total / 64)
}

/// Gives the reserve up if there is less room than it takes. To be called before anything is opened.
pub(crate) fn give_up_reserve(data: &Path) {
    if let Ok((total, free)) = room(data) {
        give_up(data, total, free);
    }
}

fn give_up(data: &Path, total: u64, free: u64) {
    if free < reserve_bytes(total) && std::fs::remove_file(data.join(RESERVE)).is_ok() {
        tracing::warn!(
            "no room to begin in {}: the reserve is given up",
            data.display()
        );
    }
}

/// Makes the reserve if it is not there, of bytes that are really there. Without it a coordinator cannot begin on a full
/// disk, and all else is the same.
fn make_reserve(data: &Path, total: u64) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let path = data.join(RESERVE);
    // One that was being made when the machine lost its power is made anew.
    if std::fs::metadata(&path).is_ok_and(|meta| meta.len() >= reserve_bytes(total)) {
        return;
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let made = options.open(&path).and_then(|mut file| {
        for _ in 0..reserve_bytes(total).div_ceil(4096) {
            file.write_all(&[0x5A; 4096])?;
        }
        file.sync_all()
    });
    if let Err(error) = made {
        tracing::debug!(%error, "no room for the reserve");
        let _ = std::fs::remove_file(&path);
    }
}

/// Looks at the disk of `data` again and again, until shutdown.
pub(crate) async fn watch(edge: Arc<Edge>, data: std::path::PathBuf) {
    let shutdown: CancellationToken = edge.shutdown.clone();
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut before = Level::Well;
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        let path = data.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let (total, free) = room(&path)?;
            let level = judge(before, total, free);
            if level == Level::Well {
                make_reserve(&path, total);
            }
            Ok::<_, std::io::Error>((total, free, level))
        });
        let Ok(Ok((total, free, level))) = looked.await else {
            continue;
        };
        edge.figures.disk_bytes.store(total, Ordering::Relaxed);
        edge.figures.disk_free_bytes.store(free, Ordering::Relaxed);
        if level == before {
            continue;
        }
        before = level;
        let found = Found {
            level,
            says: says(&data, total, free),
        };
        match level {
            Level::Well => tracing::info!("there is room on the disk again: {}", found.says),
            Level::Low | Level::Full => tracing::warn!("{}", found.says),
        }
        edge.control.tell(Command::Disk(found)).await;
    }
}

/// Below a tenth of the disk, at most 2 GiB, there is little room; below an eighth of that, at most 64 MiB, none. A level is
/// left only when there is clearly more, so that it does not come and go.
fn judge(before: Level, total: u64, free: u64) -> Level {
    let low = (total / 10).min(2 << 30);
    let full = (low / 8).min(64 << 20);
    if free < full || (before == Level::Full && free < 2 * full) {
        Level::Full
    } else if free < low || (before != Level::Well && free < low + low / 8) {
        Level::Low
    } else {
        Level::Well
    }
}

fn says(data: &Path, total: u64, free: u64) -> String {
    let mib = |bytes: u64| bytes >> 20;
    format!(
        "{} MiB of {} MiB are free on the file system of {}",
        mib(free),
        mib(total),
        data.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_given_up_only_where_there_is_no_room() {
        let dir = tempfile::tempdir().unwrap();
        let total = 1 << 30;
        let reserve = dir.path().join(RESERVE);
        // One that was not made to its end.
        std::fs::write(&reserve, "x").unwrap();
        make_reserve(dir.path(), total);
        assert_eq!(reserve.metadata().unwrap().len(), RESERVE_BYTES);
        give_up(dir.path(), total, RESERVE_BYTES);
        assert!(reserve.exists(), "there is room");
        give_up(dir.path(), total, RESERVE_BYTES - 1);
        assert!(!reserve.exists());
    }

    #[test]
    fn levels_come_at_once_and_go_with_a_margin() {
        let gib = 1 << 30;
        for (before, free, after) in [
            (Level::Well, 50 * gib, Level::Well),
            (Level::Well, gib, Level::Low),
            (Level::Low, 2 * gib + gib / 8, Level::Low),
            (Level::Low, 3 * gib, Level::Well),
            (Level::Well, 1 << 20, Level::Full),
            (Level::Full, 100 << 20, Level::Full),
            (Level::Full, 130 << 20, Level::Low),
        ] {
            assert_eq!(judge(before, 100 * gib, free), after, "{before:?} {free}");
        }
    }
}
