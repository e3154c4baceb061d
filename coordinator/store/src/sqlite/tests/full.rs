//! A full disk, a real one: a small file system of the test's own.

use super::*;
use crate::testing::on_small_disk;

const CHILD: &str = "BERTH_TEST_STORE_FULL";

/// Not a test of its own: runs on the small file system.
#[tokio::test]
async fn child_on_a_small_disk() {
    let Ok(dir) = std::env::var(CHILD) else {
        return;
    };
    let db = Path::new(&dir).join("state.db");
    let store = SqliteStore::open(&db).unwrap();
    let mut acked = Vec::new();
    let error = loop {
        let key = format!("/k/{}", acked.len());
        let txn = Txn::new().put(key.clone(), vec![b'v'; 20_000]);
        match store.commit(txn).await {
            Ok(_) => acked.push(key),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error:?}");
    assert!(error.is_retryable());
    assert!(!acked.is_empty());
    let keys = |listing: Listing| {
        listing
            .entries
            .into_iter()
            .map(|e| e.key)
            .collect::<Vec<_>>()
    };
    let mut sorted = acked.clone();
    sorted.sort();
    assert_eq!(keys(store.list("/k/").await.unwrap()), sorted);
    // Room again: it goes on without a restart.
    fs::remove_file(Path::new(&dir).join("ballast")).unwrap();
    store.commit(Txn::new().put("/after", "")).await.unwrap();
    drop(store);
    let store = SqliteStore::open(&db).unwrap();
    assert_eq!(keys(store.list("/k/").await.unwrap()), sorted);
    assert!(store.get("/after").await.unwrap().is_some());
}

#[test]
fn a_full_disk_is_told_and_harms_nothing() {
    on_small_disk(CHILD, "sqlite::tests::full::child_on_a_small_disk");
}
