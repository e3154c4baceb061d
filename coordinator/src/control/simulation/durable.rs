//! On the real store: what was acknowledged is there after a crash, and a backup can be restored.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_model::api::Deploy;
use berth_store::SqliteStore;
use tokio::task::JoinHandle;

use super::fleet::web;
use crate::control::testing::model_version;
use crate::control::{Command, Config, ControlError, Handle, start};

type Actor = JoinHandle<Result<(), ControlError>>;

async fn open(db: &Path) -> (Handle, Actor) {
    let path = db.to_owned();
    let store = tokio::task::spawn_blocking(move || SqliteStore::open(&path))
        .await
        .unwrap()
        .unwrap();
    start(Config::new(Arc::new(store), "ca")).await.unwrap()
}

/// Ends the actor as a crash does and waits until its store is closed.
async fn crash(handle: Handle, actor: Actor) {
    drop(handle);
    actor.abort();
    let _ = actor.await;
}

async fn deploy(handle: &Handle, replicas: u32) {
    let deploy = Deploy {
        model: "dga".into(),
        service: Some(web()),
        replicas: Some(replicas),
        ..Deploy::default()
    };
    let command = |reply| Command::Deploy(Box::new(deploy), reply);
    handle.ask(command).await.unwrap();
}

async fn replicas(handle: &Handle) -> u32 {
    let show = |reply| Command::Service(web(), reply);
    handle.ask(show).await.unwrap().replicas
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_commands_survive_and_a_backup_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (db, copy) = (dir.path().join("state.db"), dir.path().join("backup"));
    let (handle, actor) = open(&db).await;
    let model = Box::new(model_version("dga", "1.0.0", 0));
    let register = |reply| Command::RegisterModel(model, reply);
    assert_eq!(handle.ask(register).await.unwrap().serial, 1);
    deploy(&handle, 2).await;
    crash(handle, actor).await;

    let (handle, actor) = open(&db).await;
    assert_eq!(replicas(&handle).await, 2);
    let (from, to) = (db.clone(), copy.clone());
    let backup = move || berth_store::backup(&from, &to);
    tokio::task::spawn_blocking(backup).await.unwrap().unwrap();
    deploy(&handle, 5).await;
    crash(handle, actor).await;

    let (from, to) = (copy.clone(), db.clone());
    let restore = move || berth_store::restore(&from, &to);
    tokio::task::spawn_blocking(restore).await.unwrap().unwrap();
    let (handle, actor) = open(&db).await;
    assert_eq!(replicas(&handle).await, 2);
    let events = |reply| Command::Events(0, reply);
    let (events, _) = handle.ask(events).await.unwrap();
    // Without nodes there is nobody to wait for.
    let last: Vec<&str> = events
        .iter()
        .rev()
        .take(2)
        .map(|e| e.kind.as_str())
        .collect();
    assert_eq!(last, ["settled", "restored"]);
    crash(handle, actor).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_commands_at_once_share_commits() {
    let dir = tempfile::tempdir().unwrap();
    let (handle, actor) = open(&dir.path().join("state.db")).await;
    let mut asked = Vec::new();
    for n in 0..200 {
        let handle = handle.clone();
        asked.push(tokio::spawn(async move {
            let model = Box::new(model_version(&format!("m{n}"), "1.0.0", 0));
            let register = |reply| Command::RegisterModel(model, reply);
            handle.ask(register).await.unwrap()
        }));
    }
    for one in asked {
        let done = tokio::time::timeout(Duration::from_secs(60), one).await;
        assert_eq!(done.unwrap().unwrap().serial, 1);
    }
    let text = handle.metrics().render();
    let commits = text
        .lines()
        .find_map(|l| l.strip_prefix("berth_control_commits_total "))
        .unwrap();
    let commits: u64 = commits.parse().unwrap();
    assert!(commits < 150, "{commits} commits for 200 commands");
    crash(handle, actor).await;
}
