//! What becomes of the bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use berth_model::relay::Answer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;

use crate::common::*;

const WEB: &str = "web.1.0.1";

async fn relay() -> (Relay, Certified) {
    let fleet = Fleet::new();
    let gateway = fleet.gateway("g1");
    let relay = Relay::start(fleet, &[("g1", &gateway)]).await;
    (relay, gateway)
}

#[tokio::test]
async fn when_one_side_ends_the_other_may_go_on() {
    let (mut relay, gateway) = relay().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    relay.add(WEB, listener.local_addr().unwrap());
    // Answers only once the whole request is there, and says how long it was.
    let instance = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream
            .write_all(all.len().to_string().as_bytes())
            .await
            .unwrap();
    });
    let caller = relay.fleet.caller(&gateway);
    let mut stream = relay.connect(&caller, WEB).await;
    stream.write_all(&vec![7; 1_000_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "1000000");
    instance.await.unwrap();
}

#[tokio::test]
async fn an_instance_may_listen_on_a_unix_socket() {
    let (mut relay, gateway) = relay().await;
    let path = relay.path("instance.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let target = format!("unix:{}", path.display()).parse().unwrap();
    relay.table.instances.insert(WEB.parse().unwrap(), target);
    relay.publish();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut from, mut to) = stream.into_split();
        tokio::io::copy(&mut from, &mut to).await.unwrap();
    });
    let caller = relay.fleet.caller(&gateway);
    ping(&mut relay.connect(&caller, WEB).await, b"over a socket")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_slow_caller_holds_the_instance_back_and_loses_nothing() {
    const ALL: u64 = 64 << 20;
    let (mut relay, gateway) = relay().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    relay.add(WEB, listener.local_addr().unwrap());
    let written = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&written);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let piece = vec![9; 64 << 10];
        while counter.load(Ordering::SeqCst) < ALL {
            stream.write_all(&piece).await.unwrap();
            counter.fetch_add(piece.len() as u64, Ordering::SeqCst);
        }
    });
    let caller = relay.fleet.caller(&gateway);
    let mut stream = relay.connect(&caller, WEB).await;
    // Until the instance is held back: it has written, and writes no more.
    let mut last = 0;
    let mut same = 0;
    let held = until(async || {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = written.load(Ordering::SeqCst);
        same = if now == last { same + 1 } else { 0 };
        last = now;
        (now > 0 && same >= 10).then_some(now)
    })
    .await;
    assert!(held < ALL / 2, "{held} bytes lie somewhere in between");
    let mut got = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match stream.read(&mut buffer).await.unwrap() {
            0 => break,
            n => got += n as u64,
        }
    }
    assert_eq!(got, ALL);
}

#[tokio::test]
async fn a_new_table_leaves_the_others_connections_alone() {
    let (mut relay, gateway) = relay().await;
    relay.add(WEB, echo().await);
    relay.add("web.1.1.1", echo().await);
    let caller = relay.fleet.caller(&gateway);
    let mut stays = relay.connect(&caller, WEB).await;
    let mut goes = relay.connect(&caller, "web.1.1.1").await;
    ping(&mut stays, b"x").await.unwrap();
    ping(&mut goes, b"x").await.unwrap();
    relay.table.instances.remove(&"web.1.1.1".parse().unwrap());
    relay.publish();
    assert!(goes.read_u8().await.is_err());
    for round in 0..50 {
        relay.add(&format!("web.2.{round}.1"), echo().await);
        ping(&mut stays, b"still here").await.unwrap();
    }
    // One that cannot be read changes nothing.
    relay.write("table.json", b"{\"format\": 1, \"node\": ");
    ping(&mut stays, b"still here").await.unwrap();
    ping(&mut relay.connect(&caller, "web.2.49.1").await, b"new")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_thousand_connections_at_once() {
    let (mut relay, gateway) = relay().await;
    relay.add(WEB, echo().await);
    let relay = Arc::new(relay);
    let caller = relay.fleet.caller(&gateway);
    let mut open = Vec::new();
    // Fewer handshakes at a time than one address may have.
    for _ in 0..20 {
        let mut batch = JoinSet::new();
        for _ in 0..50 {
            let (relay, caller) = (Arc::clone(&relay), caller.clone());
            batch.spawn(async move { relay.call(&caller, WEB).await.unwrap() });
        }
        while let Some(called) = batch.join_next().await {
            let (stream, answer) = called.unwrap();
            assert_eq!(answer, Answer::Connected);
            open.push(stream);
        }
    }
    for (i, stream) in open.iter_mut().enumerate() {
        ping(stream, format!("number {i}").as_bytes())
            .await
            .unwrap();
    }
    assert_eq!(open.len(), 1000);
}
