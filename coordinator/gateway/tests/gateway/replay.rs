//! Which failures a client sees, and which go to another instance.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::common::upstream::{Upstream, plain, read_request};
use crate::common::{Rig, limited, table};
use http::Method;
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;

/// Reads a request and closes the connection without an answer.
async fn rude() -> Upstream {
    Upstream::raw(|mut stream| async move {
        read_request(&mut stream).await;
    })
    .await
}

#[tokio::test]
async fn what_was_not_sent_goes_to_another_instance() {
    let up = Upstream::text("ok").await;
    let dead = [Upstream::nobody().await, Upstream::nobody().await];
    let rig = Rig::new(table(1, &[("dga", &[dead[0], up.addr, dead[1]])]));
    for _ in 0..30 {
        // Also what must not be sent twice.
        rig.call(Method::POST, "/s/dga/order", "1")
            .await
            .expect(200);
    }
    assert_eq!(up.requests(), 30);
    assert!(rig.metric("upstream_connect_errors_total", "") >= 2);
    assert!(rig.metric("sit_outs_total", "") >= 2);
    assert!(
        rig.metric("retries_total", "") < 30,
        "the dead ones sit out"
    );
}

#[tokio::test]
async fn retryable_requests_survive_an_instance_that_fails_them() {
    let (up, rude) = (Upstream::echo().await, rude().await);
    let rig = Rig::new(table(1, &[("dga", &[rude.addr, up.addr])]));
    for n in 0..20 {
        let body = format!("{{\"n\": {n}, \"pad\": \"{}\"}}", "x".repeat(n * 2_000));
        let reply = rig
            .call(Method::POST, "/v1/models/dga:predict", body.clone())
            .await;
        assert!(reply.expect(200).text().ends_with(&body));
    }
    assert_eq!(
        up.requests(),
        20,
        "each exactly once at the one that answers"
    );
    assert!(
        rude.connections() >= 1 && rude.connections() < 10,
        "it sits out"
    );
}

#[tokio::test]
async fn other_requests_are_not_sent_twice() {
    let rude = rude().await;
    let up = Upstream::text("ok").await;
    let rig = Rig::new(table(1, &[("dga", &[rude.addr, up.addr])]));
    let mut failed = 0;
    for _ in 0..20 {
        let reply = rig.call(Method::POST, "/s/dga/order", "1").await;
        if reply.status == 502 {
            let error = reply.refused(502, "upstream").error();
            assert!(error.contains("dga.1.0.1"), "{error}");
            failed += 1;
        }
    }
    assert!(failed >= 1 && failed == rude.connections());
    assert_eq!(up.requests() + failed, 20);
    let retryable = crate::common::limited(
        table(2, &[("dga", &[rude.addr])]),
        "dga",
        berth_model::manifest::Limits {
            retryable: Some(false),
            ..Default::default()
        },
    );
    rig.handle.publish(retryable).unwrap();
    let before = rude.connections();
    rig.predict("dga").await.refused(502, "upstream");
    assert_eq!(rude.connections(), before + 1);
}

#[tokio::test]
async fn a_body_too_large_to_keep_is_not_sent_twice() {
    let up = Upstream::raw(|mut stream| async move {
        read_request(&mut stream).await;
    })
    .await;
    let rig = Rig::new(table(1, &[("dga", &[up.addr, up.addr])]));
    let large = "x".repeat(100_000);
    rig.call(Method::POST, "/v1/models/dga:predict", large)
        .await
        .refused(502, "upstream");
    assert_eq!(up.connections(), 1);
}

#[tokio::test]
async fn at_most_three_attempts() {
    let rudes = [rude().await, rude().await, rude().await, rude().await];
    let addrs: Vec<_> = rudes.iter().map(|r| r.addr).collect();
    let rig = Rig::new(table(1, &[("dga", &addrs)]));
    rig.predict("dga").await.refused(502, "upstream");
    let asked: u64 = rudes.iter().map(Upstream::connections).sum();
    assert_eq!(asked, 3);
    assert!(
        rudes.iter().all(|r| r.connections() <= 1),
        "each another one"
    );
    assert_eq!(rig.metric("requests_total", "code=\"5xx\""), 1);
}

#[tokio::test]
async fn the_last_instance_never_sits_out() {
    let well = Arc::new(AtomicBool::new(false));
    let is_well = Arc::clone(&well);
    let up = Upstream::new(move |_| {
        let well = is_well.load(Ordering::SeqCst);
        async move {
            if well {
                Ok(plain("ok"))
            } else {
                Err(std::io::Error::other("not now"))
            }
        }
    })
    .await;
    let rig = Rig::new(table(1, &[("dga", &[up.addr])]));
    for _ in 0..5 {
        rig.predict("dga").await.refused(502, "upstream");
    }
    well.store(true, Ordering::SeqCst);
    rig.predict("dga").await.expect(200);
}

/// Answers one request per connection with keep-alive, then closes when the next one comes.
#[tokio::test]
async fn a_kept_connection_that_closes_is_no_failure() {
    let up = Upstream::raw(|mut stream| async move {
        if read_request(&mut stream).await.is_some() {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                .await
                .unwrap();
            read_request(&mut stream).await;
        }
    })
    .await;
    let rig = Rig::new(table(1, &[("dga", &[up.addr])]));
    let mut client = rig.client().await;
    for _ in 0..10 {
        client
            .call(Method::POST, "/v1/models/dga:predict", "{}")
            .await
            .expect(200);
    }
    assert_eq!(rig.metric("sit_outs_total", ""), 0);
    assert_eq!(up.connections(), 10);
}

/// Closes each connection right after its answer, without saying so beforehand.
#[tokio::test]
async fn a_connection_closed_in_the_pool_is_noticed() {
    let closed = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&closed);
    let up = Upstream::raw(move |mut stream| {
        let count = Arc::clone(&count);
        async move {
            if read_request(&mut stream).await.is_some() {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    .await
                    .unwrap();
            }
            drop(stream);
            count.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let rig = Rig::new(table(1, &[("dga", &[up.addr])]));
    let mut client = rig.client().await;
    for n in 1..=20 {
        // Not to be sent twice: the gateway must see the close before it sends.
        client
            .call(Method::POST, "/s/dga/order", "1")
            .await
            .expect(200);
        crate::common::until("the close", || closed.load(Ordering::SeqCst) == n).await;
    }
    assert_eq!(up.connections(), 20);
}

#[tokio::test]
async fn an_instance_killed_under_load_costs_no_retryable_request() {
    let answer = |_| async {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        Ok(plain("ok"))
    };
    let (staying, dying) = (Upstream::new(answer).await, Upstream::new(answer).await);
    let rig = Rig::new(table(1, &[("dga", &[staying.addr, dying.addr])]));
    let done = Arc::new(AtomicBool::new(false));
    let ok = Arc::new(AtomicU64::new(0));
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (done, ok) = (Arc::clone(&done), Arc::clone(&ok));
        let mut client = rig.client().await;
        load.spawn(async move {
            while !done.load(Ordering::SeqCst) {
                client
                    .call(Method::POST, "/v1/models/dga:predict", "{}")
                    .await
                    .expect(200);
                ok.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    let reaches = |n| {
        let ok = Arc::clone(&ok);
        crate::common::until("progress", move || ok.load(Ordering::SeqCst) >= n)
    };
    reaches(200).await;
    assert!(dying.requests() > 0);
    drop(dying);
    let at = ok.load(Ordering::SeqCst);
    reaches(at + 500).await;
    done.store(true, Ordering::SeqCst);
    while let Some(result) = load.join_next().await {
        result.expect("no request failed");
    }
    assert!(rig.metric("sit_outs_total", "") >= 1);
}

#[tokio::test]
async fn a_streamed_small_body_is_kept_as_well() {
    let (up, rude) = (Upstream::echo().await, rude().await);
    let rig = Rig::new(limited(
        table(1, &[("dga", &[rude.addr, up.addr])]),
        "dga",
        Default::default(),
    ));
    for _ in 0..10 {
        let text = "POST /v1/models/dga:predict HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\
            transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n";
        let reply = crate::common::raw(rig.addr(), text.as_bytes()).await;
        assert!(reply.starts_with("HTTP/1.1 200 OK"), "{reply}");
        assert!(reply.contains("abcdefg"), "{reply}");
    }
    let _ = up.requests();
}

#[tokio::test]
async fn responses_pass_with_their_bodies() {
    let up = Upstream::new(|request| async move {
        let body = request
            .into_body()
            .collect()
            .await
            .map_err(std::io::Error::other)?;
        let mut response = plain(body.to_bytes());
        *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        response
            .headers_mut()
            .insert("berth-instance", "forged".parse().unwrap());
        response
            .headers_mut()
            .insert("keep-alive", "timeout=1".parse().unwrap());
        Ok(response)
    })
    .await;
    let rig = Rig::new(table(1, &[("dga", &[up.addr])]));
    let reply = rig
        .call(Method::POST, "/v1/models/dga:predict", "busy")
        .await
        .expect(503);
    assert_eq!(reply.text(), "busy");
    assert_eq!(reply.header("berth-error"), "", "the module's own answer");
    assert_eq!(reply.header("berth-instance"), "dga.1.0.1");
    assert_eq!(reply.header("keep-alive"), "");
    assert_eq!(up.requests(), 1, "a 503 is an answer");
}
