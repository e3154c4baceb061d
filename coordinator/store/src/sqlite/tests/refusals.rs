//! What is not opened, and that it stays as it is.

use super::*;

/// A copy of a store as a crash would leave it: database and write-ahead log.
async fn crashed(db: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("state.db");
    let store = SqliteStore::open(&live).unwrap();
    fill(&store, 50).await;
    drop(store);
    let store = SqliteStore::open(&live).unwrap();
    fill(&store, 20).await;
    fs::copy(&live, db).unwrap();
    fs::copy(paths::wal(&live), paths::wal(db)).unwrap();
}

async fn clean(db: &Path) {
    let store = SqliteStore::open(db).unwrap();
    fill(&store, 50).await;
}

/// Opens what must not open: the error, after a check that no file was changed, made or removed.
fn refused(db: &Path) -> StoreError {
    let before = files(db.parent().unwrap());
    let error = SqliteStore::open(db).unwrap_err();
    let after = files(db.parent().unwrap());
    assert!(
        before == after,
        "{error}: {:?} {:?}",
        before.keys(),
        after.keys()
    );
    error
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_crashed_store_opens_with_all_of_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("state.db");
    crashed(&db).await;
    let store = SqliteStore::open(&db).unwrap();
    assert_eq!(store.identity().await.unwrap().revision, 70);
}

type Damage = Box<dyn Fn(&mut Vec<u8>)>;

#[tokio::test]
async fn damage_is_refused_wherever_it_is() {
    for with_log in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("state.db");
        if with_log {
            crashed(&db).await;
        } else {
            clean(&db).await;
        }
        let whole = fs::read(&db).unwrap();
        // Also in stale copies, which splits of pages leave behind and nothing reads.
        let values: Vec<usize> = whole
            .windows(500)
            .enumerate()
            .filter(|(_, window)| *window == [b'v'; 500])
            .map(|(at, _)| at)
            .collect();
        let half = whole.len() / 2;
        let damages: [(&str, Damage); 6] = [
            (
                "cut off in a page",
                Box::new(move |b| b.truncate(half + 100)),
            ),
            ("a header only", Box::new(|b| b.truncate(60))),
            ("empty", Box::new(Vec::clear)),
            (
                "a flipped bit in a value",
                Box::new(move |b| values.iter().for_each(|at| b[at + 250] ^= 1)),
            ),
            ("a page of zeroes", Box::new(|b| b[8192..12288].fill(0))),
            ("pages lost", Box::new(|b| b.truncate(4096))),
        ];
        for (what, damage) in damages {
            fs::write(&db, &whole).unwrap();
            change(&db, |bytes| damage(bytes));
            let log = paths::wal(&db);
            // The log may hold newer copies of the pages, which are then not damaged at all.
            if with_log && what != "empty" && what != "a header only" {
                continue;
            }
            let error = refused(&db);
            assert!(
                matches!(error, StoreError::Corrupt { .. }),
                "{what}: {error:?}"
            );
            assert!(error.to_string().contains("restore FILE"), "{error}");
            assert_eq!(log.exists(), with_log);
        }
    }
}

#[tokio::test]
async fn a_log_without_its_database_is_not_thrown_away() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("state.db");
    crashed(&db).await;
    fs::remove_file(&db).unwrap();
    assert!(matches!(refused(&db), StoreError::Corrupt { .. }));
}

#[tokio::test]
async fn other_files_are_not_taken_for_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("state.db");
    fs::write(&db, "x".repeat(9000)).unwrap();
    assert!(matches!(refused(&db), StoreError::NotADatabase { .. }));
    fs::remove_file(&db).unwrap();
    let other = Connection::open(&db).unwrap();
    other.execute_batch("CREATE TABLE t (x)").unwrap();
    drop(other);
    assert!(matches!(refused(&db), StoreError::NotADatabase { .. }));
    fs::remove_file(&db).unwrap();
    fs::create_dir(&db).unwrap();
    assert!(matches!(refused(&db), StoreError::NotADatabase { .. }));
}

#[tokio::test]
async fn a_newer_schema_is_refused_also_if_only_the_log_says_so() {
    for in_log in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("state.db");
        clean(&db).await;
        let newer = Connection::open(&db).unwrap();
        newer.execute_batch("PRAGMA user_version = 2").unwrap();
        let target = tempfile::tempdir().unwrap();
        let copied = target.path().join("state.db");
        if !in_log {
            newer.close().unwrap();
        }
        fs::copy(&db, &copied).unwrap();
        if in_log {
            fs::copy(paths::wal(&db), paths::wal(&copied)).unwrap();
        }
        let error = refused(&copied);
        assert!(
            matches!(
                error,
                StoreError::NewerSchema {
                    found: 2,
                    known: 1,
                    ..
                }
            ),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_store_that_may_not_be_written_is_refused() {
    if rustix::process::geteuid().is_root() {
        eprintln!("skipped: root may write everything");
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("state.db");
    clean(&db).await;
    fs::set_permissions(&db, fs::Permissions::from_mode(0o400)).unwrap();
    assert!(matches!(refused(&db), StoreError::Io { .. }));
}

#[tokio::test]
async fn damage_met_while_reading_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("state.db");
    let store = SqliteStore::open(&db).unwrap();
    fill(&store, 3).await;
    let other = Connection::open(&db).unwrap();
    other
        .execute("UPDATE entries SET value = x'00' WHERE key = '/k/0001'", [])
        .unwrap();
    let error = store.get("/k/0001").await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    assert!(store.list("/k").await.is_err());
    assert!(store.get("/k/0002").await.is_ok());
}

#[test]
fn files_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("state.db");
    let _store = SqliteStore::open(&db).unwrap();
    for path in [db.clone(), paths::wal(&db), paths::shm(&db)] {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{path:?}");
    }
}
