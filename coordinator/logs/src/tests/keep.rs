//! Appending, crashes, retention, deletion.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use berth_logfile::segments;
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::index::Index;
use crate::retention::{Jump, LOOKED, shift};
use crate::writer::{BATCH, Request, SEGMENT_BYTES, Stats, Writer};

fn numbered(count: u64) -> Log {
    let mut log = Log::new();
    for i in 0..count {
        log.line(i, &format!("line {i}"));
    }
    log
}

/// Appends frame by frame, so that there are many segments.
async fn ship(store: &LogStore, key: &StreamKey, log: &Log) {
    for (at, start) in log.starts.iter().enumerate() {
        let end = log.starts.get(at + 1).copied().unwrap_or(log.bytes.len());
        store
            .append(key, *start as u64, log.range(*start..end))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn what_is_sent_again_is_acknowledged_and_not_stored_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = small(dir.path());
    let log = numbered(10);
    let key = key("web.1.0.1", 1);
    assert_eq!(store.durable(&key).await.unwrap(), 0);
    assert!(!key.dir(dir.path()).exists());
    let middle = log.starts[5];
    assert_eq!(
        store.append(&key, 0, log.range(0..middle)).await.unwrap(),
        middle as u64
    );
    assert_eq!(
        store.append(&key, 0, log.range(0..middle)).await.unwrap(),
        middle as u64
    );
    let (early, late) = (log.starts[3], log.starts[8]);
    assert_eq!(
        store
            .append(&key, early as u64, log.range(early..late))
            .await
            .unwrap(),
        late as u64
    );
    let ahead = log.starts[9];
    let error = store
        .append(&key, ahead as u64, log.range(ahead..log.bytes.len()))
        .await
        .unwrap_err();
    assert!(matches!(error, LogsError::WrongOffset { durable, .. } if durable == late as u64));
    let error = store
        .append(&key, late as u64, log.range(late + 1..log.bytes.len()))
        .await
        .unwrap_err();
    assert!(matches!(error, LogsError::BadFrames { offset, .. } if offset == late as u64));
    assert_eq!(store.append(&key, 0, log.all()).await.unwrap(), log.len());
    let wanted: Vec<String> = (0..10).map(|i| format!("line {i}")).collect();
    assert_eq!(read(&store, service("web")).await, wanted);
    assert_eq!(store.counters().lines, 10);
}

#[tokio::test]
async fn a_torn_tail_is_cut_before_anything_is_promised() {
    let dir = tempfile::tempdir().unwrap();
    let log = numbered(10);
    let key = key("web.1.0.1", 1);
    small(dir.path()).append(&key, 0, log.all()).await.unwrap();
    let last = segments(&key.dir(dir.path())).unwrap().pop().unwrap();
    let file = fs::OpenOptions::new().write(true).open(&last.path).unwrap();
    file.set_len(last.len - 3).unwrap();
    let store = small(dir.path());
    let wanted: Vec<String> = (0..9).map(|i| format!("line {i}")).collect();
    // Before and after the stream is opened for writing.
    assert_eq!(read(&store, service("web")).await, wanted);
    let mut follow = store.follow(
        Query {
            tail: Some(1),
            ..service("web")
        },
        None,
    );
    assert_eq!(follow.next().await.unwrap().unwrap().text, "line 8");
    let whole = log.starts[10] as u64;
    assert_eq!(store.durable(&key).await.unwrap(), whole);
    assert_eq!(store.append(&key, 0, log.all()).await.unwrap(), log.len());
    assert_eq!(follow.next().await.unwrap().unwrap().text, "line 9");
}

#[tokio::test]
async fn names_outlive_the_segment_that_declares_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = small(dir.path());
    let key = key("web.1.0.1", 1);
    ship(&store, &key, &numbered(40)).await;
    fs::remove_file(&segments(&key.dir(dir.path())).unwrap()[0].path).unwrap();
    let lines = all(store.read(service("web"))).await;
    assert!(lines.len() < 40);
    assert!(lines.iter().all(|line| line.process == "module"));
}

#[test]
fn appends_that_wait_share_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let stats = Arc::new(Stats::default());
    let index = Arc::new(Index::default());
    let writer = Writer::new(dir.path().into(), index, Arc::clone(&stats), SEGMENT_BYTES);
    let (log, key) = (numbered(50), key("web.1.0.1", 1));
    let (requests, queue) = mpsc::channel(BATCH);
    let mut answers = Vec::new();
    for (at, start) in log.starts.iter().enumerate() {
        let end = log.starts.get(at + 1).copied().unwrap_or(log.bytes.len());
        let (reply, answer) = oneshot::channel();
        let request = Request::Append {
            key: key.clone(),
            offset: *start as u64,
            frames: log.range(*start..end),
            reply,
        };
        requests.try_send(request).unwrap();
        answers.push(answer);
    }
    drop(requests);
    writer.run(queue);
    for answer in answers {
        assert_eq!(answer.blocking_recv().unwrap().unwrap(), log.len());
    }
    assert_eq!(stats.syncs.load(Ordering::Relaxed), 1);
}

fn age(path: &Path, age: Duration) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test]
async fn age_takes_whole_segments_and_remembers_lengths() {
    let dir = tempfile::tempdir().unwrap();
    let retention = Retention {
        max_age: DAY,
        ..keep_all()
    };
    let store = LogStore::open_with(dir.path(), retention, 300).unwrap();
    let log = numbered(40);
    let key = key("web.1.0.1", 1);
    ship(&store, &key, &log).await;
    let folder = key.dir(dir.path());
    let list = segments(&folder).unwrap();
    for segment in &list[..2] {
        age(&segment.path, 2 * DAY);
    }
    let swept = store.sweep().await.unwrap();
    assert_eq!((swept.segments, swept.bytes), (2, list[2].base));
    let found = read(&store, service("web")).await;
    assert!(!found.is_empty() && found.len() < 40);
    assert_eq!(found.last().unwrap(), "line 39");
    for segment in &list[2..] {
        age(&segment.path, 2 * DAY);
    }
    store.sweep().await.unwrap();
    assert_eq!(read(&store, service("web")).await, [""; 0]);
    drop(store);
    let store = LogStore::open_with(dir.path(), retention, 300).unwrap();
    // Shipped again: acknowledged, not stored.
    assert_eq!(store.append(&key, 0, log.all()).await.unwrap(), log.len());
    assert_eq!(read(&store, service("web")).await, [""; 0]);
    let mut more = Log::default();
    more.line(99, "more");
    store.append(&key, log.len(), more.all()).await.unwrap();
    assert_eq!(read(&store, service("web")).await, ["more"]);
    // Much later the empty stream goes too.
    for round in 0..2 {
        for segment in segments(&folder).unwrap() {
            age(&segment.path, 40 * DAY);
        }
        assert!(folder.exists());
        assert_eq!(store.sweep().await.unwrap().segments, 1 - round);
    }
    assert!(!folder.exists());
    assert_eq!(store.durable(&key).await.unwrap(), 0);
}

#[tokio::test]
async fn a_clock_that_is_set_ahead_makes_nothing_old() {
    let dir = tempfile::tempdir().unwrap();
    let retention = Retention {
        max_age: DAY,
        ..keep_all()
    };
    let store = LogStore::open_with(dir.path(), retention, 300).unwrap();
    let key = key("web.1.0.1", 1);
    ship(&store, &key, &numbered(40)).await;
    let year = 365 * DAY;
    let list = segments(&key.dir(dir.path())).unwrap();
    age(&list[0].path, year + 2 * DAY);
    for segment in &list[1..] {
        age(&segment.path, year + DAY / 2);
    }
    let now = SystemTime::now();
    let jump = Jump {
        should: now - year,
        since: now - year,
    };
    shift(dir.path(), &[key], &jump, now).unwrap();
    let swept = store.sweep().await.unwrap();
    assert_eq!(swept.segments, 1, "only what was too old before");
}

#[tokio::test]
async fn a_clock_that_is_set_ahead_between_two_runs_makes_nothing_old() {
    let dir = tempfile::tempdir().unwrap();
    let retention = Retention {
        max_age: DAY,
        ..keep_all()
    };
    let open = || LogStore::open_with(dir.path(), retention, 300).unwrap();
    let store = open();
    let key = key("web.1.0.1", 1);
    ship(&store, &key, &numbered(40)).await;
    store.sweep().await.unwrap();
    drop(store);
    // As if all of that had been a year ago: one segment is too old already, the last was written after the last look.
    let year = 365 * DAY;
    let list = segments(&key.dir(dir.path())).unwrap();
    age(&list[0].path, year + 2 * DAY);
    age(&dir.path().join(LOOKED), year);
    for segment in &list[1..] {
        age(&segment.path, year - DAY / 24);
    }
    let store = open();
    let swept = store.sweep().await.unwrap();
    assert_eq!(swept.segments, 1, "only what was too old before");
    let found = read(&store, service("web")).await;
    assert_eq!(found.last().unwrap(), "line 39");
    assert_eq!(store.sweep().await.unwrap().segments, 0);
}

#[tokio::test]
async fn what_could_not_be_given_its_age_is_tried_again_before_anything_goes() {
    let dir = tempfile::tempdir().unwrap();
    let retention = Retention {
        max_age: DAY,
        ..keep_all()
    };
    let open = || LogStore::open_with(dir.path(), retention, 300).unwrap();
    let store = open();
    let (good, bad) = (key("web.1.0.1", 1), key("web.1.1.1", 1));
    ship(&store, &good, &numbered(40)).await;
    ship(&store, &bad, &numbered(40)).await;
    store.sweep().await.unwrap();
    drop(store);
    let year = 365 * DAY;
    for key in [&good, &bad] {
        for segment in segments(&key.dir(dir.path())).unwrap() {
            age(&segment.path, year);
        }
    }
    age(&dir.path().join(LOOKED), year);
    // A segment that leads nowhere but to itself.
    let broken = bad.dir(dir.path()).join(format!("{:020}.log", 1_u64 << 40));
    std::os::unix::fs::symlink(&broken, &broken).unwrap();
    let store = open();
    store.sweep().await.unwrap_err();
    fs::remove_file(&broken).unwrap();
    assert_eq!(store.sweep().await.unwrap().segments, 0);
    assert_eq!(read(&store, service("web")).await.len(), 80);
}

#[tokio::test]
async fn size_takes_the_oldest_of_the_service_that_is_too_large() {
    let dir = tempfile::tempdir().unwrap();
    let retention = Retention {
        per_service_bytes: 1000,
        ..keep_all()
    };
    let store = LogStore::open_with(dir.path(), retention, 300).unwrap();
    let (large, other) = (numbered(100), numbered(20));
    ship(&store, &key("large.1.0.1", 1), &large).await;
    ship(&store, &key("other.1.0.1", 1), &other).await;
    let swept = store.sweep().await.unwrap();
    assert!(large.len() - swept.bytes <= 1000 && large.len() - swept.bytes > 600);
    let found = read(&store, service("large")).await;
    assert_eq!(found.last().unwrap(), "line 99");
    assert_eq!(read(&store, service("other")).await.len(), 20);
    drop(store);
    let retention = Retention {
        max_bytes: 0,
        ..keep_all()
    };
    let store = LogStore::open_with(dir.path(), retention, 300).unwrap();
    store.sweep().await.unwrap();
    assert_eq!(read(&store, service("other")).await.len(), 0);
    assert_eq!(
        store.durable(&key("other.1.0.1", 1)).await.unwrap(),
        other.len()
    );
}

#[tokio::test]
async fn a_deleted_service_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = small(dir.path());
    ship(&store, &key("web.1.0.1", 1), &numbered(20)).await;
    ship(&store, &key("web2.1.0.1", 1), &numbered(1)).await;
    store.delete_service(&"web".parse().unwrap()).await.unwrap();
    store.delete_service(&"web".parse().unwrap()).await.unwrap();
    assert_eq!(read(&store, service("web")).await, [""; 0]);
    assert_eq!(read(&store, service("web2")).await, ["line 0"]);
    let names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["web2"]);
    // What a crash left half deleted goes at the next start; strangers stay, and harm nothing.
    fs::create_dir_all(dir.path().join(".deleted-0-web/x")).unwrap();
    fs::create_dir_all(dir.path().join("web2/strange/1-x")).unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    drop(store);
    let store = small(dir.path());
    assert!(!dir.path().join(".deleted-0-web").exists());
    assert_eq!(read(&store, service("web2")).await, ["line 0"]);
}

#[tokio::test]
async fn more_streams_than_are_kept_open() {
    let dir = tempfile::tempdir().unwrap();
    let store = small(dir.path());
    let log = numbered(2);
    for round in 0..2 {
        for start in 1..=260 {
            let (from, to) = if round == 0 {
                (0, log.starts[2])
            } else {
                (log.starts[2], log.bytes.len())
            };
            let key = key("web.1.0.1", start);
            store
                .append(&key, from as u64, log.range(from..to))
                .await
                .unwrap();
        }
    }
    assert_eq!(read(&store, service("web")).await.len(), 520);
}
