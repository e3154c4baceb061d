//! Paths, headers, versions, answers of the gateway's own, the admin port.
use crate::common::upstream::Upstream;
use crate::common::{Client, Rig, config, revision, table};
use http::Method;
use std::time::Duration;

#[tokio::test]
async fn predictions_reach_the_module_with_the_right_headers() {
    let up = Upstream::echo().await;
    let rig = Rig::new(table(1, &[("dga", &[up.addr])]));
    let mut request = Client::request(Method::POST, "/v1/models/dga:predict?x=1", "{\"a\":1}");
    for (name, value) in [
        ("x-request-id", "req-7"),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        ("connection", "keep-alive, x-secret"),
        ("x-secret", "1"),
        ("te", "trailers"),
        ("proxy-authorization", "Basic x"),
        ("x-forwarded-for", "6.6.6.6"),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let reply = rig.client().await.send(request).await.unwrap().expect(200);
    let text = reply.text();
    assert!(
        text.starts_with("POST /v1/models/dga:predict?x=1\n"),
        "{text}"
    );
    assert!(text.ends_with("\n\n{\"a\":1}"), "{text}");
    for line in [
        "x-request-id: req-7",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: models.example",
        "content-length: 7",
        &format!("host: {}", up.addr),
    ] {
        assert!(text.lines().any(|l| l == line), "{line} not in {text}");
    }
    for gone in [
        "x-secret",
        "te:",
        "proxy-authorization",
        "connection",
        "6.6.6.6",
    ] {
        assert!(!text.contains(gone), "{gone} in {text}");
    }
    assert_eq!(reply.header("berth-service"), "dga");
    assert_eq!(reply.header("berth-revision"), "1");
    assert_eq!(reply.header("berth-instance"), "dga.1.0.1");
    assert_eq!(reply.header("x-request-id"), "req-7");
}

#[tokio::test]
async fn a_request_id_is_made_where_there_is_none() {
    let up = Upstream::echo().await;
    let rig = Rig::new(table(1, &[("dga", &[up.addr])]));
    let mut client = rig.client().await;
    let first = client
        .call(Method::GET, "/v1/models/dga", "")
        .await
        .expect(200);
    let second = client
        .call(Method::GET, "/v1/models/dga", "")
        .await
        .expect(200);
    let id = first.header("x-request-id");
    assert_eq!(id.len(), 32);
    assert_ne!(id, second.header("x-request-id"));
    assert!(first.text().contains(&format!("x-request-id: {id}\n")));
}

#[tokio::test]
async fn free_paths_lose_the_prefix_and_keep_the_query() {
    let up = Upstream::echo().await;
    let rig = Rig::new(table(1, &[("dga", &[up.addr])]));
    let reply = rig
        .call(Method::PUT, "/s/dga/a%2Fb/../c?q=1&r", "body")
        .await;
    let text = reply.expect(200);
    assert!(text.text().starts_with("PUT /a%2Fb/../c?q=1&r\n"));
    assert!(text.text().contains("x-forwarded-prefix: /s/dga\n"));
    let root = rig.call(Method::GET, "/s/dga", "").await.expect(200);
    assert!(root.text().starts_with("GET /\n"));
}

#[tokio::test]
async fn predict_path_is_where_predictions_go() {
    let up = Upstream::echo().await;
    let mut routes = table(1, &[("dga", &[up.addr])]);
    let service = routes.services.get_mut("dga").unwrap();
    service.revisions.get_mut(&1).unwrap().predict_path = Some("/invocations".to_owned());
    let rig = Rig::new(routes);
    let asked = async |path| {
        let reply = rig.call(Method::POST, path, "{}").await.expect(200);
        reply.text().lines().next().unwrap().to_owned()
    };
    assert_eq!(asked("/v1/models/dga:predict").await, "POST /invocations");
    assert_eq!(asked("/v1/models/dga?v=2").await, "POST /invocations?v=2");
    assert_eq!(
        asked("/v1/models/dga:classify").await,
        "POST /v1/models/dga:classify"
    );
}

#[tokio::test]
async fn versions_choose_among_revisions() {
    let (old, new) = (Upstream::text("old").await, Upstream::text("new").await);
    let mut routes = table(1, &[("dga", &[old.addr])]);
    let service = routes.services.get_mut("dga").unwrap();
    service
        .revisions
        .insert(2, revision("dga", 2, 7, &[new.addr]));
    service.revisions.insert(3, revision("dga", 3, 8, &[]));
    let rig = Rig::new(routes);
    let versioned = async |serial: &str| {
        let path = format!("/v1/models/dga/versions/{serial}:predict");
        rig.call(Method::POST, &path, "{}").await
    };
    for _ in 0..8 {
        assert_eq!(versioned("1").await.text(), "old");
        let new = versioned("7").await;
        assert_eq!((new.text(), new.header("berth-revision")), ("new", "2"));
    }
    let unknown = versioned("9").await.refused(404, "no-instance");
    assert_eq!(
        unknown.error(),
        "Servable not found for request: Specific(dga, 9)"
    );
    let empty = versioned("8").await.refused(503, "no-instance");
    assert_eq!(empty.header("retry-after"), "1");
    for _ in 0..20 {
        rig.predict("dga").await.expect(200);
    }
    assert!(old.requests() > 8 && new.requests() > 8, "both take part");
}

#[tokio::test]
async fn own_answers() {
    let mut routes = table(1, &[("empty", &[]), ("dga", &[])]);
    routes.services.get_mut("dga").unwrap().unavailable_reason = "waiting for a node".to_owned();
    let rig = Rig::new(routes);
    let unknown = rig.predict("nope").await.refused(404, "no-service");
    assert!(unknown.error().contains("nope"));
    let empty = rig.predict("empty").await.refused(503, "no-instance");
    assert_eq!(empty.header("retry-after"), "1");
    assert_eq!(empty.header("berth-service"), "empty");
    let reason = rig.predict("dga").await.refused(503, "no-instance").error();
    assert!(reason.contains("waiting for a node"), "{reason}");
    let get = rig.call(Method::GET, "/v1/models/dga:predict", "").await;
    assert_eq!(get.refused(405, "bad-request").header("allow"), "POST");
    let label = rig
        .call(Method::POST, "/v1/models/dga/labels/gold:predict", "{}")
        .await;
    let label = label.refused(400, "bad-request").error();
    assert_eq!(label, "Unrecognized servable version label: gold");
    rig.call(Method::GET, "/else", "")
        .await
        .refused(404, "bad-request");
    assert_eq!(
        rig.metric("errors_total", "service=\"\",error=\"no-service\""),
        1
    );
    assert_eq!(
        rig.metric("errors_total", "service=\"empty\",error=\"no-instance\""),
        1
    );
}

#[tokio::test]
async fn head_requests_have_no_body() {
    let up = Upstream::text("twelve bytes").await;
    let rig = Rig::new(table(1, &[("dga", &[up.addr])]));
    let mut client = rig.client().await;
    for _ in 0..3 {
        let reply = client.call(Method::HEAD, "/s/dga/x", "").await.expect(200);
        assert_eq!(
            (reply.header("content-length"), reply.body.len()),
            ("12", 0)
        );
        let reply = client.call(Method::HEAD, "/s/none/x", "").await.expect(404);
        assert_eq!(
            (reply.header("berth-error"), reply.body.len()),
            ("no-service", 0)
        );
    }
}

#[tokio::test]
async fn load_is_spread_and_connections_are_reused() {
    let ups = [Upstream::text("a").await, Upstream::text("b").await];
    let rig = Rig::new(table(1, &[("dga", &[ups[0].addr, ups[1].addr])]));
    let mut client = rig.client().await;
    for _ in 0..100 {
        client
            .call(Method::POST, "/v1/models/dga:predict", "{}")
            .await
            .expect(200);
    }
    for up in &ups {
        assert!(up.requests() > 20, "{}", up.requests());
        assert_eq!(up.connections(), 1);
    }
    assert_eq!(rig.metric("requests_total", "code=\"2xx\""), 100);
    assert_eq!(rig.metric("request_duration_seconds_count", ""), 100);
    assert_eq!(rig.handle.in_flight(), []);
}

#[tokio::test]
async fn its_threads_say_that_they_turn_until_they_end() {
    let rig = Rig::new(table(1, &[]));
    rig.handle.alive().await;
    // Two who ask at once both get an answer.
    tokio::join!(rig.handle.alive(), rig.handle.alive());
    assert!(rig.handle.drain(Duration::from_secs(5)).await);
    let asked = tokio::time::timeout(Duration::from_millis(50), rig.handle.alive());
    assert!(asked.await.is_err(), "ended threads have answered");
}

#[tokio::test]
async fn the_admin_port_tells_when_it_is_ready() {
    let gateway = berth_gateway::Gateway::bind(config()).unwrap();
    let handle = gateway.handle();
    let admin = async |path| {
        let mut client = Client::connect(gateway.admin_addr()).await;
        client.call(Method::GET, path, "").await
    };
    admin("/healthz").await.expect(200);
    assert_eq!(
        admin("/readyz").await.expect(503).text(),
        "no route table yet\n"
    );
    let none = Client::connect(gateway.addr())
        .await
        .call(Method::POST, "/v1/models/dga:predict", "{}")
        .await;
    none.refused(503, "no-instance");
    handle.publish(table(5, &[])).unwrap();
    crate::common::until("readiness", || handle.is_ready()).await;
    admin("/readyz").await.expect(200);
    let metrics = admin("/metrics").await.expect(200);
    assert!(
        metrics
            .header("content-type")
            .starts_with("text/plain; version=0.0.4")
    );
    assert!(
        metrics
            .text()
            .contains("\nberth_gateway_table_generation 5\n")
    );
    admin("/else").await.expect(404);
    assert_eq!(handle.table_version().unwrap().generation, 5);
}
