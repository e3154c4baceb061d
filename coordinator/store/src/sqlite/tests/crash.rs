//! `kill -9` at any moment: what was acknowledged is there.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use super::*;

const CHILD: &str = "BERTH_TEST_STORE_CHILD";

/// Not a test of its own: the process that the test below kills.
#[tokio::test]
async fn child_that_commits_until_it_is_killed() {
    let Ok(db) = std::env::var(CHILD) else {
        return;
    };
    let store = SqliteStore::open(Path::new(&db)).unwrap();
    loop {
        let tasks: Vec<_> = (0..4)
            .map(|writer| {
                let store = store.clone();
                tokio::spawn(async move {
                    let next = store.list("/seq/").await.unwrap().revision;
                    let txn = Txn::new()
                        .put(format!("/seq/{writer}"), next.to_string())
                        .put(format!("/data/{writer}/{}", next % 50), vec![b'd'; 2000]);
                    store.commit(txn).await.unwrap()
                })
            })
            .collect();
        for task in tasks {
            let revision = task.await.unwrap();
            // Straight to the pipe: the test harness must not hold it back.
            writeln!(std::io::stderr().lock(), "acked {revision}").unwrap();
        }
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("state.db");
    let mut last = 0;
    for round in 0..6_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "sqlite::tests::crash::child_that_commits_until_it_is_killed",
            ])
            .args(["--nocapture", "--test-threads=1"])
            .env(CHILD, &db)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (mut acked, mut count) = (last, 0);
        for line in lines {
            let line = line.unwrap_or_default();
            if let Some(revision) = line
                .strip_prefix("acked ")
                .and_then(|r| r.parse::<u64>().ok())
            {
                acked = acked.max(revision);
                count += 1;
            }
            // What it wrote between the kill and its death counts too: read to the end.
            if count == 20 + round * 37 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(acked > last);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let store = SqliteStore::open(&db).unwrap();
        let found = runtime.block_on(store.identity()).unwrap().revision;
        assert!(found >= acked, "{found} {acked}");
        last = found;
    }
}
