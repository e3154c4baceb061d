//! Bodies stream both ways, no faster than the slower side takes them.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::common::upstream::{Body, Upstream, full};
use crate::common::{Client, Rig, table};
use bytes::Bytes;
use http::{Method, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// A body fed through a channel.
fn fed() -> (mpsc::UnboundedSender<Bytes>, Body) {
    let (feed, mut pieces) = mpsc::unbounded_channel::<Bytes>();
    let stream = futures_util::stream::poll_fn(move |cx| {
        pieces
            .poll_recv(cx)
            .map(|piece| piece.map(|p| Ok(Frame::data(p))))
    });
    (feed, StreamBody::new(stream).boxed())
}

#[tokio::test]
async fn a_response_is_passed_on_piece_by_piece() {
    let (give, feeds) = std::sync::mpsc::channel();
    let up = Upstream::new(move |_| {
        let (feed, body) = fed();
        give.send(feed).unwrap();
        async move { Ok(Response::new(body)) }
    })
    .await;
    let rig = Rig::new(table(1, &[("dga", &[up.addr])]));
    let mut client = rig.client().await;
    let request = Client::request(Method::GET, "/s/dga/events", "");
    let mut response = client.start(request).await.unwrap();
    let feed = feeds.recv().unwrap();
    assert_eq!(rig.handle.in_flight().len(), 1, "in flight until its end");
    for text in ["one", "two", "three"] {
        feed.send(Bytes::from(text)).unwrap();
        let frame = response.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), text);
    }
    drop(feed);
    assert!(response.frame().await.is_none());
    crate::common::until("the end", || rig.handle.in_flight().is_empty()).await;
}

#[tokio::test]
async fn a_request_is_passed_on_while_it_comes() {
    let up = Upstream::new(|request| async move {
        // Answers each piece of the request with itself, at once.
        let body = request.into_body().map_err(std::io::Error::other);
        Ok(Response::new(body.boxed()))
    })
    .await;
    let rig = Rig::new(table(1, &[("dga", &[up.addr])]));
    let mut stream = TcpStream::connect(rig.addr()).await.unwrap();
    let head = "POST /s/dga/talk HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut seen = String::new();
    for word in ["alpha", "bravo", "gamma"] {
        stream
            .write_all(format!("5\r\n{word}\r\n").as_bytes())
            .await
            .unwrap();
        while !seen.contains(word) {
            let mut buffer = [0; 1024];
            let n = stream.read(&mut buffer).await.unwrap();
            assert!(n > 0);
            seen.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
        }
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    assert!(seen.starts_with("HTTP/1.1 200 OK\r\n"), "{seen}");
}

#[tokio::test]
async fn large_bodies_come_back_whole() {
    let up = Upstream::new(|request| async move {
        let body = request
            .into_body()
            .collect()
            .await
            .map_err(std::io::Error::other)?;
        Ok(Response::new(full(body.to_bytes())))
    })
    .await;
    let rig = Rig::new(table(1, &[("dga", &[up.addr])]));
    let mut client = rig.client().await;
    let sent: Bytes = (0..8_000_000u32)
        .map(|n| n.to_le_bytes()[n as usize % 3])
        .collect();
    for size in [0, 1, 65_535, 65_536, 65_537, 1 << 20, sent.len()] {
        let body = sent.slice(..size);
        let reply = client
            .call(Method::POST, "/s/dga/echo", body.clone())
            .await
            .expect(200);
        assert!(reply.body == body, "{size}");
    }
    assert_eq!(up.connections(), 1);
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_instance() {
    const PIECE: usize = 64 << 10;
    let produced = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&produced);
    let up = Upstream::new(move |_| {
        let count = Arc::clone(&count);
        let stream = futures_util::stream::repeat_with(move || {
            count.fetch_add(PIECE as u64, Ordering::SeqCst);
            Ok(Frame::data(Bytes::from(vec![b'x'; PIECE])))
        });
        async move { Ok(Response::new(StreamBody::new(stream).boxed())) }
    })
    .await;
    let rig = Rig::new(table(1, &[("dga", &[up.addr])]));
    let mut stream = TcpStream::connect(rig.addr()).await.unwrap();
    stream
        .write_all(b"GET /s/dga/endless HTTP/1.1\r\nhost: h\r\n\r\n")
        .await
        .unwrap();
    // It stops once all buffers on the way are full: the figure stands still.
    let mut last = 0;
    let mut still = 0;
    while still < 20 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = produced.load(Ordering::SeqCst);
        assert!(
            now < 64 << 20,
            "{now} bytes produced for a client that reads nothing"
        );
        still = if now == last && now > 0 { still + 1 } else { 0 };
        last = now;
    }
    drop(stream);
    crate::common::until("the end", || rig.handle.in_flight().is_empty()).await;
}

#[tokio::test]
async fn a_response_that_breaks_off_is_seen_to_break_off() {
    let (give, feeds) = std::sync::mpsc::channel();
    let up = Upstream::new(move |_| {
        let (feed, body) = fed();
        give.send(feed).unwrap();
        async move { Ok(Response::new(body)) }
    })
    .await;
    let other = Upstream::text("other").await;
    let rig = Rig::new(table(1, &[("dga", &[up.addr])]));
    let mut client = rig.client().await;
    let request = Client::request(Method::GET, "/s/dga/events", "");
    let mut response = client.start(request).await.unwrap();
    let feed = feeds.recv().unwrap();
    feed.send(Bytes::from("begun")).unwrap();
    assert!(response.frame().await.unwrap().is_ok());
    drop(up);
    assert!(response.frame().await.unwrap().is_err(), "not a clean end");
    crate::common::until("the end", || rig.handle.in_flight().is_empty()).await;
    rig.handle
        .publish(table(2, &[("dga", &[other.addr])]))
        .unwrap();
    rig.predict("dga").await.expect(200);
}

#[tokio::test]
async fn a_client_that_leaves_frees_the_instance() {
    let up = Upstream::new(|_| async move { std::future::pending().await }).await;
    let rig = Rig::new(table(1, &[("dga", &[up.addr])]));
    let mut stream = TcpStream::connect(rig.addr()).await.unwrap();
    stream
        .write_all(b"GET /v1/models/dga HTTP/1.1\r\nhost: h\r\n\r\n")
        .await
        .unwrap();
    crate::common::until("the request", || up.requests() == 1).await;
    assert_eq!(rig.handle.in_flight().len(), 1);
    drop(stream);
    crate::common::until("the end", || rig.handle.in_flight().is_empty()).await;
}
