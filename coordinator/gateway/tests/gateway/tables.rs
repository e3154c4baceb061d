//! Tables that change, instances that are removed, gateways that stop: without a failed request.
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::upstream::{Upstream, plain};
use crate::common::{Client, Rig, Tally, config, table};
use berth_gateway::PublishError;
use berth_model::route::Table;
use http::Method;
use tokio::task::JoinSet;

/// Clients that ask all the time, over kept connections; requests that must not be sent twice, so that
/// no replay hides a failure.
struct Load {
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

impl Load {
    fn start(addr: SocketAddr, clients: usize) -> Self {
        let mut load = Self {
            tally: Arc::default(),
            stop: Arc::default(),
            clients: JoinSet::new(),
        };
        for _ in 0..clients {
            let (tally, stop) = (Arc::clone(&load.tally), Arc::clone(&load.stop));
            load.clients.spawn(async move {
                let mut client = Client::connect(addr).await;
                while !stop.load(Ordering::SeqCst) {
                    let request = Client::request(Method::POST, "/s/dga/x", "{}");
                    match client.send(request).await {
                        Ok(reply) if reply.status == 200 => tally.ok.fetch_add(1, Ordering::SeqCst),
                        other => {
                            eprintln!("failed: {other:?}");
                            tally.failed.fetch_add(1, Ordering::SeqCst)
                        }
                    };
                }
            });
        }
        load
    }

    async fn progress(&self, requests: u64) {
        let goal = self.tally.ok() + requests;
        crate::common::until("progress", || {
            self.tally.ok() >= goal || self.tally.failed() > 0
        })
        .await;
    }

    async fn finish(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        while let Some(client) = self.clients.join_next().await {
            client.unwrap();
        }
        assert_eq!(self.tally.failed(), 0);
    }
}

/// Takes a little time, so that requests are under way at any moment.
async fn working() -> Upstream {
    Upstream::new(|_| async {
        tokio::time::sleep(Duration::from_micros(500)).await;
        Ok(plain("ok"))
    })
    .await
}

async fn acknowledged(rig: &Rig, version: &Table) {
    let wait = async {
        while rig.handle.report().acknowledged < version.version {
            rig.handle.changed().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .expect("acknowledged");
}

#[tokio::test]
async fn idle_threads_acknowledge_as_well() {
    let rig = Rig::new(table(1, &[]));
    for generation in 2..50 {
        let next = table(generation, &[]);
        rig.handle.publish(next.clone()).unwrap();
        acknowledged(&rig, &next).await;
        assert_eq!(rig.handle.table_version(), Some(next.version));
    }
    let old = rig.handle.publish(table(3, &[]));
    assert!(matches!(old, Err(PublishError::Older { .. })));
    rig.handle.publish(table(49, &[])).unwrap();
    let other = rig.handle.publish(table(49, &[("dga", &[])]));
    assert!(matches!(other, Err(PublishError::Conflict(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_change_under_load() {
    let ups = [working().await, working().await, working().await];
    let rig = Rig::new(table(1, &[("dga", &[ups[0].addr])]));
    let load = Load::start(rig.addr(), 8);
    for generation in 2..200 {
        let shown = [ups[generation % 3].addr, ups[(generation + 1) % 3].addr];
        rig.handle
            .publish(table(generation as u64, &[("dga", &shown)]))
            .unwrap();
        load.progress(5).await;
    }
    load.finish().await;
    for up in &ups {
        assert!(up.requests() > 0);
    }
}

/// The promise of the crate's documentation: acknowledged without it, and none in flight, means that an
/// instance can be killed without a request failing. Each round removes and kills one of two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_instance_can_be_killed() {
    let mut staying = working().await;
    let mut attempt = 1;
    let named = |generation: u64, instances: &[(u32, SocketAddr)]| {
        let mut routes = table(generation, &[("dga", &[])]);
        let service = routes.services.get_mut("dga").unwrap();
        let revision = service.revisions.get_mut(&1).unwrap();
        for (attempt, addr) in instances {
            revision
                .instances
                .insert(format!("dga.1.0.{attempt}").parse().unwrap(), *addr);
        }
        routes
    };
    let rig = Rig::new(named(1, &[(attempt, staying.addr)]));
    let load = Load::start(rig.addr(), 12);
    let mut generation = 1;
    for _ in 0..60 {
        let coming = working().await;
        generation += 1;
        let both = [(attempt, staying.addr), (attempt + 1, coming.addr)];
        rig.handle.publish(named(generation, &both)).unwrap();
        load.progress(20).await;
        generation += 1;
        let without = named(generation, &[(attempt + 1, coming.addr)]);
        rig.handle.publish(without.clone()).unwrap();
        let leaving = format!("dga.1.0.{attempt}").parse().unwrap();
        let gone = async {
            loop {
                let report = rig.handle.report();
                let busy = report.in_flight.iter().any(|(id, _)| *id == leaving);
                if report.acknowledged >= without.version && !busy {
                    return;
                }
                rig.handle.changed().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), gone)
            .await
            .expect("drained");
        // Replaces and thereby kills it.
        staying = coming;
        attempt += 1;
    }
    load.progress(100).await;
    load.finish().await;
}

#[tokio::test]
async fn instances_that_left_are_reported_until_their_last_request() {
    let (release, wait) = tokio::sync::watch::channel(false);
    let slow = Upstream::new(move |_| {
        let mut wait = wait.clone();
        async move {
            wait.wait_for(|go| *go).await.unwrap();
            Ok(plain("slow"))
        }
    })
    .await;
    let rig = Rig::new(table(1, &[("dga", &[slow.addr])]));
    let mut client = rig.client().await;
    let reply = tokio::spawn(async move { client.call(Method::GET, "/s/dga/x", "").await });
    crate::common::until("the request", || slow.requests() == 1).await;
    for generation in 2..5 {
        let empty = table(generation, &[]);
        rig.handle.publish(empty.clone()).unwrap();
        acknowledged(&rig, &empty).await;
        let expected = vec![("dga.1.0.1".parse().unwrap(), 1)];
        assert_eq!(rig.handle.in_flight(), expected);
    }
    let report = tokio::spawn({
        let handle = rig.handle.clone();
        async move {
            while !handle.report().in_flight.is_empty() {
                handle.changed().await;
            }
        }
    });
    release.send(true).unwrap();
    reply.await.unwrap().expect(200);
    tokio::time::timeout(Duration::from_secs(20), report)
        .await
        .expect("told")
        .unwrap();
}

#[tokio::test]
async fn a_drain_finishes_what_is_under_way() {
    let (release, wait) = tokio::sync::watch::channel(false);
    let up = Upstream::new(move |request| {
        let mut wait = wait.clone();
        async move {
            if request.uri().path() == "/slow" {
                wait.wait_for(|go| *go).await.unwrap();
            }
            Ok(plain("ok"))
        }
    })
    .await;
    let rig = Rig::new(table(1, &[("dga", &[up.addr])]));
    let mut busy = rig.client().await;
    let mut kept = rig.client().await;
    kept.call(Method::GET, "/s/dga/x", "").await.expect(200);
    let slow = tokio::spawn(async move { busy.call(Method::GET, "/s/dga/slow", "").await });
    crate::common::until("the request", || up.requests() == 2).await;
    let drain = tokio::spawn({
        let handle = rig.handle.clone();
        async move { handle.drain(Duration::from_secs(20)).await }
    });
    let mut refused = false;
    while !refused {
        refused = Client::try_connect(rig.addr()).await.is_err();
    }
    assert!(!rig.handle.is_ready());
    // A kept connection is still answered, for the last time.
    let last = kept.call(Method::GET, "/s/dga/x", "").await.expect(200);
    assert_eq!(last.header("connection"), "close");
    assert!(!drain.is_finished());
    release.send(true).unwrap();
    let reply = slow.await.unwrap().expect(200);
    assert_eq!(reply.header("connection"), "close");
    assert!(drain.await.unwrap(), "nothing was cut off");
}

#[tokio::test]
async fn a_drain_ends_in_time() {
    let up = Upstream::new(|_| async { std::future::pending().await }).await;
    let rig = Rig::new(table(1, &[("dga", &[up.addr])]));
    let mut client = rig.client().await;
    let cut = tokio::spawn(async move {
        client
            .send(Client::request(Method::GET, "/s/dga/x", ""))
            .await
    });
    crate::common::until("the request", || up.requests() == 1).await;
    assert!(!rig.handle.drain(Duration::from_millis(100)).await);
    assert!(cut.await.unwrap().is_err());
    assert!(rig.handle.in_flight().is_empty());
}

#[tokio::test]
async fn a_gateway_starts_from_the_table_on_disk() {
    let up = Upstream::text("ok").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("table.json");
    berth_gateway::persist::save(&file, &table(9, &[("dga", &[up.addr])])).unwrap();
    let table = berth_gateway::persist::load(&file).unwrap().unwrap();
    let rig = Rig::new(table);
    rig.predict("dga").await.expect(200);
    assert_eq!(rig.handle.table_version().unwrap().generation, 9);
}

#[tokio::test]
async fn two_gateways_do_not_share_a_port_by_accident() {
    let rig = Rig::new(table(1, &[]));
    let taken = berth_gateway::GatewayConfig {
        listen: rig.addr(),
        ..config()
    };
    let error = berth_gateway::Gateway::bind(taken).err().expect("refused");
    assert!(
        error.to_string().contains(&rig.addr().to_string()),
        "{error}"
    );
}
