//! The engine as a whole.

mod backups;
mod crash;
mod full;
mod model;
mod refusals;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::{Guard, Op};

/// The content of every file in a folder but the lock.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file() && path.extension().is_none_or(|e| e != "lock"))
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read(&path).unwrap())
        })
        .collect()
}

async fn fill(store: &SqliteStore, count: usize) {
    for i in 0..count {
        let txn = Txn::new().put(format!("/k/{i:04}"), vec![b'v'; 500]);
        store.commit(txn).await.unwrap();
    }
}

#[tokio::test]
async fn a_store_keeps_what_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("state.db");
    let store = SqliteStore::open(&db).unwrap();
    let first = store.identity().await.unwrap();
    assert_eq!((first.revision, first.schema), (0, SCHEMA));
    assert_eq!(
        store
            .commit(Txn::new().put("/a", "1").put("/b", "2"))
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        store
            .commit(Txn::new().delete("/b").put("/c", "3"))
            .await
            .unwrap(),
        2
    );
    assert_eq!(store.commit(Txn::new().delete("/none")).await.unwrap(), 2);
    drop(store);
    assert_eq!(
        files(dir.path()).into_keys().collect::<Vec<_>>(),
        ["state.db"]
    );
    let store = SqliteStore::open(&db).unwrap();
    let again = store.identity().await.unwrap();
    assert_eq!((again.epoch, again.revision), (first.epoch, 2));
    let listing = store.list("/").await.unwrap();
    let found: Vec<_> = listing
        .entries
        .iter()
        .map(|e| (e.key.as_str(), e.mod_revision))
        .collect();
    assert_eq!((listing.revision, found), (2, vec![("/a", 1), ("/c", 2)]));
    assert_eq!(store.get("/b").await.unwrap(), None);
    assert_eq!(store.get("/c").await.unwrap().unwrap().value, b"3");
}

#[tokio::test]
async fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("state.db");
    let store = SqliteStore::open(&db).unwrap();
    assert!(matches!(
        SqliteStore::open(&db),
        Err(StoreError::Locked { .. })
    ));
    assert!(matches!(restore(&db, &db), Err(StoreError::Locked { .. })));
    drop(store);
    SqliteStore::open(&db).unwrap();
}

#[tokio::test]
async fn transactions_that_wait_share_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("state.db");
    let store = SqliteStore::open(&db).unwrap();
    store.commit(Txn::new().put("/once", "")).await.unwrap();
    // Another connection holds the write lock until all are queued.
    let other = Connection::open(&db).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let before = store.batches();
    let sent = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..200)
        .map(|i| {
            let (store, sent) = (store.clone(), Arc::clone(&sent));
            tokio::spawn(async move {
                sent.fetch_add(1, Ordering::Relaxed);
                let txn = Txn::new().guard(Guard::At("/once".into(), 1));
                store.commit(txn.put("/once", format!("{i}"))).await
            })
        })
        .collect();
    // On this one thread a task that was polled has put its transaction into the queue, which has room
    // for all. The writer may have taken any number of the first ones out again: it waits for the lock.
    const { assert!(QUEUE >= 200) };
    while sent.load(Ordering::Relaxed) < 200 {
        tokio::task::yield_now().await;
    }
    other.execute_batch("COMMIT").unwrap();
    let mut won = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(revision) => won += u64::from(revision == 2),
            Err(StoreError::Conflict { key }) => assert_eq!(key, "/once"),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(won, 1);
    assert!(store.batches() - before <= 2);
}

#[tokio::test]
async fn the_limits_are_those_of_every_engine() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("state.db")).unwrap();
    let too_large = Txn::new().put("/big", vec![0; crate::MAX_TXN_BYTES]);
    assert!(matches!(
        store.commit(too_large).await,
        Err(StoreError::TooLarge { .. })
    ));
    let many = (0..crate::MAX_TXN_OPS).map(|i| Op::Put(format!("/{i}"), vec![7; 8000]));
    let txn = Txn {
        guards: Vec::new(),
        ops: many.collect(),
    };
    assert_eq!(store.commit(txn).await.unwrap(), 1);
    assert_eq!(
        store.list("/").await.unwrap().entries.len(),
        crate::MAX_TXN_OPS
    );
}

#[tokio::test]
async fn watchers_see_every_change_once_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("state.db")).unwrap();
    fill(&store, 3).await;
    let mut all = store.watch("/k/", 1).await.unwrap();
    let mut later = store.watch("/k/", 500).await.unwrap();
    let mut others = store.watch("/other/", 1).await.unwrap();
    fill(&store, 600).await;
    for revision in 1..=603 {
        assert_eq!(all.recv().await.unwrap().revision, revision);
    }
    assert_eq!(later.recv().await.unwrap().revision, 500);
    store
        .commit(Txn::new().delete("/k/0001").put("/other/x", ""))
        .await
        .unwrap();
    let gone = all.recv().await.unwrap();
    assert_eq!(
        (gone.revision, gone.key.as_str(), gone.value),
        (604, "/k/0001", None)
    );
    assert_eq!(others.recv().await.unwrap().key, "/other/x");
    drop(store);
    assert_eq!(all.recv().await, None);
}

#[tokio::test]
async fn what_was_before_the_start_is_not_watched() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("state.db");
    let store = SqliteStore::open(&db).unwrap();
    fill(&store, 3).await;
    drop(store);
    let store = SqliteStore::open(&db).unwrap();
    assert!(matches!(
        store.watch("/", 3).await,
        Err(StoreError::Compacted { oldest: 4 })
    ));
    assert!(store.watch("/", 4).await.is_ok());
}

#[tokio::test]
async fn the_log_is_folded_in_while_running() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("state.db");
    let store = SqliteStore::open(&db).unwrap();
    for i in 0..1000_u32 {
        let txn = Txn::new().put("/same", i.to_le_bytes());
        store.commit(txn).await.unwrap();
    }
    let log = fs::metadata(paths::wal(&db)).unwrap().len();
    assert!(log < 4 << 20, "{log}");
}
