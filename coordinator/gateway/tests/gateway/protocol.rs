//! HTTP/1.1 as it is abused: framing, smuggling, upgrades.
use std::sync::{Arc, Mutex};

use crate::common::upstream::Upstream;
use crate::common::{Rig, raw, table};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Records every byte it is sent and answers each head.
async fn wiretap() -> (Upstream, Arc<Mutex<String>>) {
    let heard = Arc::new(Mutex::new(String::new()));
    let tap = Arc::clone(&heard);
    let up = Upstream::raw(move |mut stream| {
        let tap = Arc::clone(&tap);
        async move {
            let mut buffer = [0; 65536];
            while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
                let ends = text.ends_with("0\r\n\r\n") || !text.contains("chunked");
                tap.lock().unwrap().push_str(&text);
                if ends
                    && stream
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                        .await
                        .is_err()
                {
                    return;
                }
            }
        }
    })
    .await;
    (up, heard)
}

#[tokio::test]
async fn ambiguous_lengths_reach_no_instance_ambiguously() {
    let (up, heard) = wiretap().await;
    let rig = Rig::new(table(1, &[("dga", &[up.addr])]));
    for order in [
        "content-length: 4\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 4\r\n",
    ] {
        heard.lock().unwrap().clear();
        let smuggled = "GET /s/dga/smuggled HTTP/1.1\r\nhost: h\r\n\r\n";
        let request = format!(
            "POST /s/dga/x HTTP/1.1\r\nhost: h\r\n{order}\r\n3\r\nabc\r\n0\r\n\r\n{smuggled}"
        );
        let reply = raw(rig.addr(), request.as_bytes()).await;
        // By RFC 9112 the chunks count, the length is dropped, and the connection ends after it.
        assert_eq!(reply.matches("HTTP/1.1 ").count(), 1, "{reply}");
        assert!(reply.contains("connection: close"), "{reply}");
        let heard = heard.lock().unwrap().clone();
        assert!(!heard.contains("content-length"), "{heard}");
        assert!(heard.contains("transfer-encoding: chunked"), "{heard}");
        assert!(
            heard.contains("3\r\nabc\r\n0\r\n\r\n") && !heard.contains("smuggled"),
            "{heard}"
        );
    }
}

#[tokio::test]
async fn malformed_requests_are_refused() {
    let (up, heard) = wiretap().await;
    let rig = Rig::new(table(1, &[("dga", &[up.addr])]));
    for bad in [
        "POST /s/dga/x HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcde",
        "POST /s/dga/x HTTP/1.1\r\nhost: h\r\ncontent-length: +4\r\n\r\nabcd",
        "POST /s/dga/x HTTP/1.1\r\nhost: h\r\ncontent-length: 4, 4\r\n\r\nabcd",
        "POST /s/dga/x HTTP/1.1\r\nhost: h\r\ntransfer-encoding: gzip\r\n\r\nabcd",
        "POST /s/dga/x HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST /s/dga/x HTTP/1.0\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /s/dga/x HTTP/1.1\r\nhost : h\r\n\r\n",
        "GET /s/dga/x HTTP/1.1\r\nhost: h\r\nbad header: 1\r\n\r\n",
        "GET /s/dga/x HTTP/1.1\r\nhost: h\r\na: b\r\n c\r\n\r\n",
        "GET /s/dga/x\x01 HTTP/1.1\r\nhost: h\r\n\r\n",
        "GET /s/dga/x HTTP/1.1\r\n\r\n",
        "GET /s/dga/x HTTP/1.1\r\nhost: h\r\nhost: i\r\nconnection: close\r\n\r\n",
        "CONNECT models:80 HTTP/1.1\r\nhost: models:80\r\nconnection: close\r\n\r\n",
        "GET /s/dga/x HTTP/1.1\r\nhost: h\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let closing = bad.replace(
            "GET /s/dga/x HTTP/1.1\r\n\r\n",
            "GET /s/dga/x HTTP/1.1\r\nconnection: close\r\n\r\n",
        );
        let reply = raw(rig.addr(), closing.as_bytes()).await;
        let refused = reply.starts_with("HTTP/1.1 400") || reply.starts_with("HTTP/1.0 400");
        assert!(refused || reply.is_empty(), "{bad:?}: {reply}");
    }
    assert_eq!(*heard.lock().unwrap(), "", "none reached the instance");
}

#[tokio::test]
async fn broken_chunks_end_the_request() {
    let (up, heard) = wiretap().await;
    let rig = Rig::new(table(1, &[("dga", &[up.addr])]));
    let head = "POST /s/dga/x HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n";
    for bad in [
        "zz\r\nabc\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\na\r\n",
    ] {
        let reply = raw(rig.addr(), format!("{head}{bad}").as_bytes()).await;
        assert!(reply.starts_with("HTTP/1.1 400"), "{bad:?}: {reply}");
        assert!(
            reply.contains("berth-error: bad-request"),
            "{bad:?}: {reply}"
        );
    }
    assert!(
        !heard.lock().unwrap().contains("0\r\n\r\n"),
        "never a clean end"
    );
    assert_eq!(rig.metric("sit_outs_total", ""), 0);
}

#[tokio::test]
async fn a_client_that_waits_gets_its_100() {
    let up = Upstream::echo().await;
    let rig = Rig::new(table(1, &[("dga", &[up.addr])]));
    let mut stream = TcpStream::connect(rig.addr()).await.unwrap();
    let head = "POST /s/dga/x HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\
        expect: 100-continue\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut buffer = [0; 25];
    stream.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    let reply = crate::common::read_to_end(&mut stream).await;
    assert!(
        reply.starts_with("HTTP/1.1 200") && reply.ends_with("hello"),
        "{reply}"
    );
    assert!(!reply.contains("expect"), "{reply}");
    // Refused without being asked for its body.
    let none = raw(rig.addr(), head.replace("dga", "none").as_bytes()).await;
    assert!(none.starts_with("HTTP/1.1 404"), "{none}");
}

#[tokio::test]
async fn old_clients_and_absolute_targets_are_served() {
    let chunked = Upstream::raw(|mut stream| async move {
        crate::common::upstream::read_request(&mut stream).await;
        let reply = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        stream.write_all(reply).await.unwrap();
    })
    .await;
    let rig = Rig::new(table(1, &[("dga", &[chunked.addr])]));
    let old = raw(rig.addr(), b"GET /s/dga/x HTTP/1.0\r\n\r\n").await;
    assert!(
        old.starts_with("HTTP/1.0 200") && old.ends_with("\r\n\r\nok"),
        "{old}"
    );
    let echo = Upstream::echo().await;
    rig.handle
        .publish(table(2, &[("dga", &[echo.addr])]))
        .unwrap();
    let absolute =
        b"GET http://models/s/dga/x?y HTTP/1.1\r\nhost: models\r\nconnection: close\r\n\r\n";
    let reply = raw(rig.addr(), absolute).await;
    assert!(reply.contains("\r\n\r\nGET /x?y\n"), "{reply}");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let up = Upstream::echo().await;
    let rig = Rig::new(table(1, &[("dga", &[up.addr])]));
    let requests = "GET /s/dga/1 HTTP/1.1\r\nhost: h\r\n\r\nGET /s/dga/2 HTTP/1.1\r\nhost: h\r\n\r\n\
        GET /s/dga/3 HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    let reply = raw(rig.addr(), requests.as_bytes()).await;
    let order: Vec<usize> = ["GET /1", "GET /2", "GET /3"]
        .iter()
        .map(|t| reply.find(t).unwrap())
        .collect();
    assert!(order.is_sorted(), "{reply}");
}

#[tokio::test]
async fn nonsense_from_an_instance_is_a_bad_gateway() {
    for nonsense in [
        "SSH-2.0-OpenSSH_9\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
    ] {
        let up = Upstream::raw(move |mut stream| async move {
            crate::common::upstream::read_request(&mut stream).await;
            stream.write_all(nonsense.as_bytes()).await.unwrap();
        })
        .await;
        let rig = Rig::new(table(1, &[("dga", &[up.addr])]));
        rig.call(http::Method::POST, "/s/dga/x", "1")
            .await
            .refused(502, "upstream");
    }
}

#[tokio::test]
async fn surplus_bytes_of_an_instance_reach_no_other_client() {
    let up = Upstream::raw(|mut stream| async move {
        while crate::common::upstream::read_request(&mut stream).await.is_some() {
            let reply = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
            if stream.write_all(reply).await.is_err() {
                return;
            }
        }
    })
    .await;
    let rig = Rig::new(table(1, &[("dga", &[up.addr])]));
    let mut client = rig.client().await;
    for _ in 0..10 {
        let reply = client
            .call(http::Method::GET, "/v1/models/dga", "")
            .await
            .expect(200);
        assert_eq!(reply.text(), "ok");
    }
}
