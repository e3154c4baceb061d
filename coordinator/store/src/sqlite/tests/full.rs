//! A full disk, a real one: a small file system of the test's own.

use std::process::Command;

use super::*;

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
    let dir = tempfile::tempdir().unwrap();
    let exe = std::env::current_exe().unwrap();
    let script = format!(
        "mount -t tmpfs -o size=2m none '{0}' || exit 77
         head -c 1000000 /dev/zero > '{0}/ballast'
         {CHILD}='{0}' '{1}' --exact sqlite::tests::full::child_on_a_small_disk",
        dir.path().display(),
        exe.display()
    );
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", &script])
        .output();
    match output {
        Ok(output) if output.status.success() => {
            let told = String::from_utf8_lossy(&output.stdout);
            assert!(told.contains("1 passed"), "{told}");
        }
        Ok(output) if output.status.code() == Some(77) || told_no_namespace(&output.stderr) => {
            eprintln!("skipped: a small file system cannot be mounted here");
        }
        Ok(output) => panic!("{output:?}"),
        Err(error) => eprintln!("skipped: no unshare: {error}"),
    }
}

fn told_no_namespace(stderr: &[u8]) -> bool {
    String::from_utf8_lossy(stderr).contains("unshare: ")
}
