//! Looks at the disk again and again, makes room where it can, and says what is so.

use std::sync::Arc;
use std::time::Duration;

use berth_model::node::{Condition, Facts};

use super::{Disk, Level, Room};
use crate::packages::Cache;
use crate::rpc::board::Board;

/// Between looks.
const LOOK: Duration = Duration::from_secs(5);

/// For ever.
pub(crate) async fn watch(disk: Arc<Disk>, cache: Arc<Cache>, board: Arc<Board>) {
    let mut level = Level::Well;
    let measured = cache.clone();
    // What could not be measured is not deleted.
    let _ = tokio::task::spawn_blocking(move || measured.measure()).await;
    loop {
        let (disk_there, cache) = (disk.clone(), cache.clone());
        let before = level;
        let looked = tokio::task::spawn_blocking(move || look(&disk_there, &cache, before));
        level = looked.await.unwrap_or(level);
        if level != before {
            match level {
                Level::Well => tracing::info!("there is room on the disk again"),
                Level::Low | Level::Full => tracing::warn!("{}", disk.says()),
            }
            board.facts(|facts| note(facts, disk.condition(level)));
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = disk.wake.notified() => {}
        }
    }
}

/// One look. What can be done without is deleted when there is little room.
fn look(disk: &Disk, cache: &Cache, before: Level) -> Level {
    let Some(room) = Room::of(&disk.data) else {
        return before;
    };
    let marks = disk.marks(room);
    let refused = |room: Room| {
        let was = disk.last_refused().is_some();
        // Where there is next to nothing, a probe would only be in the way of others.
        if was && room.free >= 2 * marks.full && disk.probe() {
            disk.last_refused().take();
            return false;
        }
        was
    };
    let mut level = marks.judge(before, room, refused(room));
    if level != Level::Well {
        let wanted = marks.low + marks.low / 8;
        let short = wanted.saturating_sub(room.free).max(1);
        if cache.shrink(short) > 0 {
            let room = Room::of(&disk.data).unwrap_or(room);
            level = marks.judge(before, room, refused(room));
        }
    }
    if level == Level::Well {
        disk.make_reserve();
    }
    level
}

fn note(facts: &mut Facts, condition: Option<Condition>) {
    let ours = [Condition::DISK_FULL, Condition::DISK_LOW];
    facts
        .conditions
        .retain(|known| !ours.contains(&known.kind.as_str()));
    facts.conditions.extend(condition);
}
