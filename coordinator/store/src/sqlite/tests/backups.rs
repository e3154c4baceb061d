//! Backups under load, and restores.

use std::sync::atomic::{AtomicBool, Ordering};

use super::super::restore::restore_at;
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_is_of_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("state.db");
    let out = dir.path().join("backup.db");
    let store = SqliteStore::open(&db).unwrap();
    fill(&store, 100).await;
    let stop = Arc::new(AtomicBool::new(false));
    let load = {
        let (store, stop) = (store.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut last = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                // Always the same in both: a backup that mixes moments shows.
                let value = (last + 1).to_string().repeat(100);
                let txn = Txn::new().put("/x", value.clone()).put("/y", value);
                last = store.commit(txn).await.unwrap();
            }
            last
        })
    };
    let mut revision = 0;
    for round in 0..5 {
        let (db, out) = (db.clone(), out.clone());
        let made = tokio::task::spawn_blocking(move || backup(&db, &out))
            .await
            .unwrap()
            .unwrap();
        assert!(made.revision >= 100 && made.revision >= revision, "{round}");
        revision = made.revision;
    }
    stop.store(true, Ordering::Relaxed);
    load.await.unwrap();
    drop(store);
    let epoch = SqliteStore::open(&db)
        .unwrap()
        .identity()
        .await
        .unwrap()
        .epoch;
    let names: Vec<_> = files(dir.path()).into_keys().collect();
    assert_eq!(names, ["backup.db", "state.db"]);

    let restored = restore(&out, &db).unwrap();
    assert!(restored.epoch > epoch);
    assert_eq!(restored.revision, revision);
    let kept = restored.kept.unwrap();
    assert!(kept.ends_with("state.db.before-restore-1"), "{kept:?}");
    let store = SqliteStore::open(&db).unwrap();
    assert_eq!(store.identity().await.unwrap().revision, revision);
    let (x, y) = (
        store.get("/x").await.unwrap(),
        store.get("/y").await.unwrap(),
    );
    assert_eq!(x.map(|e| e.value), y.map(|e| e.value));
    assert_eq!(
        store.commit(Txn::new().put("/z", "")).await.unwrap(),
        revision + 1
    );
    assert!(
        SqliteStore::open(&kept)
            .unwrap()
            .identity()
            .await
            .unwrap()
            .revision
            >= revision
    );
}

#[tokio::test]
async fn epochs_rise_above_all_that_were() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("state.db");
    let out = dir.path().join("backup.db");
    let store = SqliteStore::open(&db).unwrap();
    fill(&store, 2).await;
    let first = store.identity().await.unwrap().epoch;
    drop(store);
    backup(&db, &out).unwrap();
    // With a clock that went back, restores of the same backup still rise.
    assert_eq!(restore_at(&out, &db, 5).unwrap().epoch, first + 1);
    assert_eq!(restore_at(&out, &db, 5).unwrap().epoch, first + 2);
    assert_eq!(
        restore_at(&out, &db, first + 100).unwrap().epoch,
        first + 100
    );
    // The replaced one cannot be read: time tells.
    fs::write(&db, "broken").unwrap();
    let restored = restore_at(&out, &db, first + 200).unwrap();
    assert_eq!(restored.epoch, first + 200);
    let kept = restored.kept.unwrap();
    assert!(kept.ends_with("state.db.before-restore-4"), "{kept:?}");
    assert_eq!(fs::read(kept).unwrap(), b"broken");
    // Nothing to replace.
    fs::remove_file(&db).unwrap();
    assert_eq!(restore_at(&out, &db, first + 300).unwrap().kept, None);
}

#[tokio::test]
async fn a_bad_backup_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("state.db");
    let out = dir.path().join("backup.db");
    let store = SqliteStore::open(&db).unwrap();
    fill(&store, 100).await;
    // A copy of the files of a live database is no backup.
    fs::copy(&db, &out).unwrap();
    fs::copy(paths::wal(&db), paths::wal(&out)).unwrap();
    drop(store);
    assert!(matches!(
        restore(&out, &db),
        Err(StoreError::NotADatabase { .. })
    ));
    fs::remove_file(paths::wal(&out)).unwrap();
    backup(&db, &out).unwrap();
    let whole = fs::read(&out).unwrap();
    for damaged in [&whole[..whole.len() - 1], &whole[..5000], b"nothing", b""] {
        fs::write(&out, damaged).unwrap();
        let before = files(dir.path());
        let error = restore(&out, &db).unwrap_err();
        assert!(error.to_string().contains("backup.db"), "{error}");
        assert!(before == files(dir.path()));
    }
    assert!(matches!(
        restore(&dir.path().join("none"), &db),
        Err(StoreError::Io { .. })
    ));
    assert!(matches!(backup(&db, &db), Err(StoreError::Io { .. })));
}

#[tokio::test]
async fn a_crashed_database_is_kept_with_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("state.db");
    let out = dir.path().join("backup.db");
    let other = tempfile::tempdir().unwrap();
    let live = other.path().join("state.db");
    let store = SqliteStore::open(&live).unwrap();
    fill(&store, 10).await;
    backup(&live, &out).unwrap();
    fill(&store, 10).await;
    fs::copy(&live, &db).unwrap();
    fs::copy(paths::wal(&live), paths::wal(&db)).unwrap();
    // An offline backup of it has all of its log, and leaves it as it is.
    let before = files(dir.path());
    let second = dir.path().join("second.db");
    assert_eq!(backup(&db, &second).unwrap().revision, 20);
    assert_eq!(before["state.db-wal"], files(dir.path())["state.db-wal"]);
    let kept = restore(&out, &db).unwrap().kept.unwrap();
    assert_eq!(
        SqliteStore::open(&db)
            .unwrap()
            .identity()
            .await
            .unwrap()
            .revision,
        10
    );
    assert_eq!(
        SqliteStore::open(&kept)
            .unwrap()
            .identity()
            .await
            .unwrap()
            .revision,
        20
    );
}

#[tokio::test]
async fn an_interrupted_restore_must_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("state.db");
    let out = dir.path().join("backup.db");
    fill(&SqliteStore::open(&db).unwrap(), 10).await;
    backup(&db, &out).unwrap();
    // As it is when the power fails between the two renames.
    fs::write(paths::restoring(&db), "").unwrap();
    fs::rename(&db, dir.path().join("state.db.before-restore-1")).unwrap();
    assert!(matches!(
        SqliteStore::open(&db),
        Err(StoreError::RestoreInterrupted { .. })
    ));
    restore(&out, &db).unwrap();
    assert_eq!(
        SqliteStore::open(&db)
            .unwrap()
            .identity()
            .await
            .unwrap()
            .revision,
        10
    );
}
