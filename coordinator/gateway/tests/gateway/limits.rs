//! Sizes, times, places: what the gateway does not let through, and how it says so.
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::upstream::{Upstream, plain};
use crate::common::{Client, Rig, config, limited, raw, read_to_end, table};
use berth_gateway::GatewayConfig;
use berth_model::manifest::Limits;
use berth_model::time::{Bytes, Span};
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

fn at_most(bytes: u64) -> Limits {
    Limits {
        max_body: Some(Bytes(bytes)),
        ..Limits::default()
    }
}

/// Holds every request until a permit is given.
async fn held() -> (Upstream, Arc<Semaphore>) {
    let permits = Arc::new(Semaphore::new(0));
    let given = Arc::clone(&permits);
    let up = Upstream::new(move |_| {
        let given = Arc::clone(&given);
        async move {
            given.acquire().await.unwrap().forget();
            Ok(plain("done"))
        }
    })
    .await;
    (up, permits)
}

#[tokio::test]
async fn announced_bodies_over_the_limit_are_refused_unread() {
    let up = Upstream::echo().await;
    let rig = Rig::new(limited(
        table(1, &[("dga", &[up.addr])]),
        "dga",
        at_most(1000),
    ));
    rig.call(Method::POST, "/s/dga/x", "x".repeat(1000))
        .await
        .expect(200);
    // Large enough that a client which writes before it reads would meet a reset.
    let reply = rig
        .call(Method::POST, "/s/dga/x", "x".repeat(1_500_000))
        .await;
    let reply = reply.refused(413, "too-large");
    assert!(reply.error().contains("1000 bytes"));
    assert_eq!(reply.header("berth-service"), "dga");
    assert_eq!(up.requests(), 1);
}

#[tokio::test]
async fn streamed_bodies_over_the_limit_are_cut() {
    let up = Upstream::echo().await;
    let rig = Rig::new(limited(table(1, &[("dga", &[up.addr])]), "dga", at_most(8)));
    let head = "POST /v1/models/dga:predict HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\
        transfer-encoding: chunked\r\n\r\n";
    let fits = raw(
        rig.addr(),
        format!("{head}8\r\n12345678\r\n0\r\n\r\n").as_bytes(),
    )
    .await;
    assert!(fits.starts_with("HTTP/1.1 200"), "{fits}");
    let large = raw(
        rig.addr(),
        format!("{head}8\r\n12345678\r\n1\r\n9\r\n0\r\n\r\n").as_bytes(),
    )
    .await;
    assert!(large.starts_with("HTTP/1.1 413"), "{large}");
    assert!(large.contains("berth-error: too-large"), "{large}");
    rig.predict("dga").await.refused(413, "too-large");
    assert_eq!(
        rig.metric("sit_outs_total", ""),
        0,
        "not the instance's fault"
    );
}

#[tokio::test]
async fn a_response_must_begin_in_time() {
    let (up, permits) = held().await;
    let config = GatewayConfig {
        request_timeout: Span::millis(150),
        ..config()
    };
    let rig = Rig::with(config, table(1, &[("dga", &[up.addr])]));
    let begun = Instant::now();
    let reply = rig.predict("dga").await.refused(504, "timeout");
    assert!(begun.elapsed() >= Duration::from_millis(150));
    assert!(reply.error().contains("150 ms"), "{}", reply.error());
    assert!(rig.handle.in_flight().is_empty());
    assert_eq!(rig.metric("requests_total", "code=\"5xx\""), 1);
    permits.add_permits(2);
    rig.predict("dga").await.expect(200);
}

#[tokio::test]
async fn the_manifests_timeout_covers_the_body() {
    let endless = Upstream::raw(|mut stream| async move {
        crate::common::upstream::read_request(&mut stream).await;
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let mut alive = stream.write_all(head).await;
        while alive.is_ok() {
            alive = stream.write_all(b"1\r\nx\r\n").await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let limits = Limits {
        timeout: Some(Span::millis(200)),
        ..Limits::default()
    };
    let rig = Rig::new(limited(
        table(1, &[("dga", &[endless.addr])]),
        "dga",
        limits,
    ));
    let begun = Instant::now();
    let request = Client::request(Method::GET, "/s/dga/x", "");
    let broken = rig.client().await.send(request).await;
    assert!(broken.is_err(), "{broken:?}");
    assert!(begun.elapsed() >= Duration::from_millis(190));
    crate::common::until("the end", || rig.handle.in_flight().is_empty()).await;
}

#[tokio::test]
async fn a_body_that_stops_coming_is_given_up() {
    let up = Upstream::echo().await;
    let config = GatewayConfig {
        body_idle_timeout: Span::millis(100),
        ..config()
    };
    let rig = Rig::with(config, table(1, &[("dga", &[up.addr])]));
    let begun =
        "POST /v1/models/dga:predict HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\n12345";
    let reply = raw(rig.addr(), begun.as_bytes()).await;
    assert!(reply.starts_with("HTTP/1.1 408"), "{reply}");
    assert!(reply.contains("berth-error: timeout"), "{reply}");
    assert_eq!(rig.metric("sit_outs_total", ""), 0);
}

#[tokio::test]
async fn slow_heads_and_idle_connections_are_closed() {
    let up = Upstream::echo().await;
    let config = GatewayConfig {
        head_timeout: Span::millis(150),
        keep_alive_timeout: Span::millis(600),
        ..config()
    };
    let rig = Rig::with(config, table(1, &[("dga", &[up.addr])]));
    let begun = Instant::now();
    let reply = raw(rig.addr(), b"POST /v1/models/dga:pre").await;
    let slow = begun.elapsed();
    assert!(
        reply.is_empty() && slow >= Duration::from_millis(150),
        "{slow:?} {reply}"
    );
    assert!(slow < Duration::from_millis(550), "{slow:?}");
    let begun = Instant::now();
    raw(rig.addr(), b"GET /s/dga/x HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert!(begun.elapsed() >= Duration::from_millis(600));
    crate::common::until("the end", || rig.metric("connections", "") == 0).await;
}

#[tokio::test]
async fn heads_are_limited() {
    let up = Upstream::echo().await;
    let rig = Rig::new(table(1, &[("dga", &[up.addr])]));
    let with = |headers: String| {
        format!("GET /s/dga/x HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{headers}\r\n")
    };
    let fine = raw(
        rig.addr(),
        with(format!("a: {}\r\n", "x".repeat(60_000))).as_bytes(),
    )
    .await;
    assert!(fine.starts_with("HTTP/1.1 200"));
    for headers in [
        format!("a: {}\r\n", "x".repeat(70_000)),
        "a: b\r\n".repeat(101),
    ] {
        let reply = raw(rig.addr(), with(headers).as_bytes()).await;
        assert!(reply.starts_with("HTTP/1.1 431"), "{reply}");
    }
    assert_eq!(up.requests(), 1);
}

#[tokio::test]
async fn places_are_limited_and_the_queue_is_bounded() {
    let (up, permits) = held().await;
    let limits = Limits {
        concurrency: Some(2),
        queue: Some(3),
        ..Limits::default()
    };
    let rig = Rig::new(limited(table(1, &[("dga", &[up.addr])]), "dga", limits));
    let mut waiting = tokio::task::JoinSet::new();
    for n in 1..=5u64 {
        let mut client = rig.client().await;
        waiting.spawn(async move {
            client
                .call(Method::POST, "/v1/models/dga:predict", "{}")
                .await
        });
        let places = n.min(2);
        crate::common::until("the request", || {
            rig.metric("in_flight", "") == places && rig.metric("queued", "dga") == n - places
        })
        .await;
    }
    let over = rig.predict("dga").await.refused(503, "overloaded");
    assert_eq!(over.header("retry-after"), "1");
    assert_eq!(up.requests(), 2);
    permits.add_permits(5);
    while let Some(reply) = waiting.join_next().await {
        reply.unwrap().expect(200);
    }
    assert_eq!((up.requests(), rig.metric("queued", "")), (5, 0));
}

#[tokio::test]
async fn a_new_instance_serves_those_who_wait() {
    let (busy, _permits) = held().await;
    let free = Upstream::text("free").await;
    let limits = Limits {
        concurrency: Some(1),
        ..Limits::default()
    };
    let rig = Rig::new(limited(
        table(1, &[("dga", &[busy.addr])]),
        "dga",
        limits.clone(),
    ));
    let mut first = rig.client().await;
    let held = tokio::spawn(async move {
        first
            .call(Method::POST, "/v1/models/dga:predict", "{}")
            .await
    });
    crate::common::until("the first", || busy.requests() == 1).await;
    let mut second = rig.client().await;
    let waits = tokio::spawn(async move {
        second
            .call(Method::POST, "/v1/models/dga:predict", "{}")
            .await
    });
    crate::common::until("the second", || rig.metric("queued", "dga") == 1).await;
    let both = table(2, &[("dga", &[busy.addr, free.addr])]);
    rig.handle.publish(limited(both, "dga", limits)).unwrap();
    assert_eq!(waits.await.unwrap().expect(200).text(), "free");
    held.abort();
}

#[tokio::test]
async fn who_waits_too_long_is_told() {
    let (up, permits) = held().await;
    let limits = Limits {
        concurrency: Some(1),
        timeout: Some(Span::millis(200)),
        ..Limits::default()
    };
    let rig = Rig::new(limited(table(1, &[("dga", &[up.addr])]), "dga", limits));
    let (a, b) = tokio::join!(rig.predict("dga"), rig.predict("dga"));
    a.refused(504, "timeout");
    b.refused(504, "timeout");
    assert_eq!(rig.metric("queued", "dga"), 0);
    permits.add_permits(3);
    rig.predict("dga").await.expect(200);
}

#[tokio::test]
async fn connections_are_limited() {
    let up = Upstream::echo().await;
    let config = GatewayConfig {
        max_connections: 2,
        ..config()
    };
    let rig = Rig::with(config, table(1, &[("dga", &[up.addr])]));
    let mut one = rig.client().await;
    let mut two = rig.client().await;
    one.call(Method::GET, "/s/dga/x", "").await.expect(200);
    two.call(Method::GET, "/s/dga/x", "").await.expect(200);
    let mut third = TcpStream::connect(rig.addr()).await.unwrap();
    let reply = read_to_end(&mut third).await;
    assert!(
        reply.starts_with("HTTP/1.1 503") && reply.contains("berth-error: overloaded"),
        "{reply}"
    );
    drop(one);
    crate::common::until("the first's end", || rig.metric("connections", "") == 1).await;
    rig.call(Method::GET, "/s/dga/x", "").await.expect(200);
    two.call(Method::GET, "/s/dga/x", "").await.expect(200);
}

#[tokio::test]
async fn an_instance_that_does_not_accept_times_out() {
    // A full backlog: connections to it hang.
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener
        .bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    listener.listen(0).unwrap();
    let addr = listener.local_addr().unwrap().as_socket().unwrap();
    let mut fill = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(addr)).await
    {
        fill.push(stream);
    }
    let up = Upstream::text("ok").await;
    let config = GatewayConfig {
        connect_timeout: Span::millis(100),
        ..config()
    };
    let rig = Rig::with(config, table(1, &[("dga", &[addr, up.addr])]));
    for _ in 0..10 {
        rig.call(Method::POST, "/s/dga/x", "1").await.expect(200);
    }
    assert!(rig.metric("upstream_connect_errors_total", "") >= 1);
    let mut buffer = [0; 1];
    let _ = tokio::time::timeout(Duration::from_millis(1), fill[0].read(&mut buffer)).await;
}
