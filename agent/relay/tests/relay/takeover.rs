//! Ends, new beginnings, and the process that takes over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::common::*;

const WEB: &str = "web.1.0.1";

#[tokio::test]
async fn a_relay_that_was_killed_serves_again_by_what_is_on_the_disk() {
    let fleet = Fleet::new();
    let gateway = fleet.gateway("g1");
    let mut relay = Relay::start(fleet, &[("g1", &gateway)]).await;
    relay.add(WEB, echo().await);
    let caller = relay.fleet.caller(&gateway);
    ping(&mut relay.connect(&caller, WEB).await, b"x")
        .await
        .unwrap();
    relay.kill();
    relay.spawn().await;
    // The ticket of the process that is gone is worth nothing, and costs a full handshake.
    ping(&mut relay.connect(&caller, WEB).await, b"x")
        .await
        .unwrap();
}

#[tokio::test]
async fn it_waits_for_the_agent() {
    let fleet = Fleet::new();
    let gateway = fleet.gateway("g1");
    let mut relay = Relay::start(fleet, &[("g1", &gateway)]).await;
    relay.kill();
    let table = relay.path("folder/table.json");
    std::fs::remove_file(&table).unwrap();
    let metrics = relay.path("runtime/metrics.prom");
    let _ = std::fs::remove_file(&metrics);
    let writer = {
        let (table, metrics) = (relay.table.clone(), metrics.clone());
        let path = relay.path("folder/table.json");
        std::thread::spawn(move || {
            // Until it runs.
            while !metrics.exists() {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            replace(&path, &serde_json::to_vec(&table).unwrap());
        })
    };
    relay.spawn().await;
    writer.join().unwrap();
    relay.add(WEB, echo().await);
    let caller = relay.fleet.caller(&gateway);
    ping(&mut relay.connect(&caller, WEB).await, b"x")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_new_process_takes_over_and_nobody_notices() {
    let fleet = Fleet::new();
    let gateway = fleet.gateway("g1");
    let mut relay = Relay::start(fleet, &[("g1", &gateway)]).await;
    relay.add(WEB, echo().await);
    let caller = relay.fleet.caller(&gateway);
    let mut open = relay.connect(&caller, WEB).await;
    ping(&mut open, b"before").await.unwrap();
    let old = relay.pid();

    let over = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU64::new(0));
    let relay = Arc::new(tokio::sync::RwLock::new(relay));
    let load = {
        let (over, done, relay, caller) = (
            Arc::clone(&over),
            Arc::clone(&done),
            Arc::clone(&relay),
            caller.clone(),
        );
        tokio::spawn(async move {
            while !over.load(Ordering::SeqCst) {
                let relay = relay.read().await;
                ping(&mut relay.connect(&caller, WEB).await, b"under way")
                    .await
                    .unwrap();
                done.fetch_add(1, Ordering::SeqCst);
            }
        })
    };
    let more = async |by: u64| {
        let from = done.load(Ordering::SeqCst);
        until(async || (done.load(Ordering::SeqCst) >= from + by).then_some(())).await;
    };
    more(5).await;
    let mut reload = relay.read().await.command();
    let reloaded = tokio::task::spawn_blocking(move || reload.arg("reload").status().unwrap());
    assert!(reloaded.await.unwrap().success());
    more(5).await;
    // The old process finishes what is under way, by the newest table, and ends.
    ping(&mut open, b"after").await.unwrap();
    over.store(true, Ordering::SeqCst);
    load.await.unwrap();
    let mut relay = Arc::into_inner(relay).unwrap().into_inner();
    let meeting = relay.path("runtime").join(berth_relay::MEETING);
    let owner = berth_handover::owner(&meeting).await.unwrap();
    assert_ne!(owner.pid, old);
    drop(open);
    assert!(relay.ended().await.success());
    ping(&mut relay.connect(&caller, WEB).await, b"x")
        .await
        .unwrap();
    // The new one is not a child of this test's.
    let pid = i32::try_from(owner.pid).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    until(async || berth_handover::owner(&meeting).await.is_err().then_some(())).await;
}
