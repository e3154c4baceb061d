//! Who may use which route, and what errors look like.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails"
)]

mod common;

use common::Running;
use serde_json::{Value, json};

const METHODS: [&str; 6] = ["get", "head", "post", "put", "patch", "delete"];

/// Every route in the document, with its variable parts filled in: method, path, whether it is open.
async fn routes(running: &Running) -> Vec<(String, String, bool)> {
    let document: Value = running
        .client()
        .get(running.url("/v1/openapi.json"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let digest = format!("blake3:{}", "0".repeat(64));
    let mut routes = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            assert!(METHODS.contains(&method.as_str()), "{method}");
            let path = path.replace("{digest}", &digest);
            let parts = path.split('/').map(|part| match part.strip_prefix('{') {
                Some(_) => "web",
                None => part,
            });
            let path = parts.collect::<Vec<_>>().join("/");
            let open = operation["security"] == json!([]);
            routes.push((method.to_uppercase(), path, open));
        }
    }
    assert!(routes.len() > 20);
    routes
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_wants_the_admin_token_but_the_open_ones() {
    let running = Running::start().await;
    let client = running.client();
    let tokens = [
        None,
        Some("wrong".to_owned()),
        Some(running.token("gateway")),
        Some(running.token("metrics")),
    ];
    let mut open_routes = Vec::new();
    for (method, path, open) in routes(&running).await {
        if open {
            open_routes.push(path.clone());
        }
        for token in &tokens {
            let mut request = client.request(method.parse().unwrap(), running.url(&path));
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let answer = request.send().await.unwrap();
            let refused = answer.status() == 401;
            // This test's machine is loopback, from where /metrics is open.
            let wanted = !open && !path.starts_with("/metrics");
            assert_eq!(refused, wanted, "{method} {path} with {token:?}");
            assert_eq!(
                answer.headers().contains_key("www-authenticate"),
                wanted,
                "{path}"
            );
            assert!(answer.headers().contains_key("berth-version"), "{path}");
        }
        if !path.ends_with("/watch") {
            let answer = running.request(&method, &path).send().await.unwrap();
            assert_ne!(answer.status(), 401, "{method} {path} as admin");
        }
    }
    open_routes.sort();
    assert_eq!(open_routes, ["/healthz", "/readyz", "/v1/openapi.json"]);
    running.stop().await;
}

async fn problem(request: reqwest::RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["status"], status, "{problem}");
    assert!(!problem["detail"].as_str().unwrap().is_empty(), "{problem}");
    (status, problem)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_is_told_as_a_problem() {
    let running = Running::start().await;
    let cases = [
        ("GET", "/v1/nothing", None, 404),
        ("GET", "/", None, 404),
        ("PUT", "/v1/services", None, 405),
        ("POST", "/v1/services", Some("{"), 400),
        ("POST", "/v1/services", Some(r#"{"modle": "x"}"#), 400),
        ("POST", "/v1/services", Some(r#"{"model": "no-such"}"#), 404),
        (
            "POST",
            "/v1/services/web/scale",
            Some(r#"{"replicas": 1}"#),
            404,
        ),
        (
            "POST",
            "/v1/services/web/scale",
            Some(r#"{"replicas": -1}"#),
            400,
        ),
        ("GET", "/v1/services/web", None, 404),
        ("GET", "/v1/services/web/watch", None, 404),
        ("GET", "/v1/services/Web", None, 400),
        ("GET", "/v1/nodes/n1", None, 404),
        ("DELETE", "/v1/nodes/n1", None, 404),
        ("GET", "/v1/models/m", None, 404),
        ("GET", "/v1/blobs/sha256:00", None, 400),
        ("GET", "/v1/logs", None, 400),
        ("GET", "/v1/events?after=x", None, 400),
        ("GET", "/v1/events?aftr=1", None, 400),
        ("DELETE", "/v1/services/web", None, 404),
    ];
    for (method, path, body, wanted) in cases {
        let mut request = running.request(method, path);
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body);
        }
        let (status, problem) = problem(request).await;
        assert_eq!(status, wanted, "{method} {path} {body:?}: {problem}");
    }
    let as_form = running.request("POST", "/v1/tokens").body("uses=1");
    assert_eq!(problem(as_form).await.0, 415);
    let long = format!("{{\"model\": \"{}\"}}", "x".repeat(2 << 20));
    let long = running
        .request("POST", "/v1/services")
        .header("content-type", "application/json")
        .body(long);
    assert_eq!(problem(long).await.0, 413);
    // What there is and is not is nothing for strangers.
    let stranger = running.client().get(running.url("/v1/nothing"));
    assert_eq!(problem(stranger).await.0, 401);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_lists_and_figures_answer() {
    let running = Running::start().await;
    for path in ["/healthz", "/readyz"] {
        let answer = running.client().get(running.url(path)).send().await;
        assert_eq!(answer.unwrap().status(), 200, "{path}");
    }
    for path in ["models", "services", "nodes", "gateways", "events"] {
        let list = running.get(&format!("/v1/{path}")).await;
        assert!(list["items"].is_array(), "{path}: {list}");
    }
    let status = running.get("/v1/status").await;
    assert!(status["problems"].is_array(), "{status}");
    let metrics = running.request("GET", "/metrics").send().await.unwrap();
    let text = metrics.text().await.unwrap();
    let counted = "berth_api_requests_total{method=\"GET\",path=\"/v1/models\",status=\"200\"} 1";
    assert!(text.contains(counted), "{text}");
    assert!(text.contains("berth_log_lines_total 0"), "{text}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_as_a_list_and_as_a_stream() {
    let running = Running::start().await;
    running.join_token(&json!({})).await;
    let list = running.get("/v1/events").await;
    let last = list["items"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["kind"], "token-created", "{list}");
    let answer = running
        .request("GET", "/v1/events")
        .header("accept", "text/event-stream")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let text = answer.text().await.unwrap();
    assert!(text.contains(&format!("id: {}", last["seq"])), "{text}");
    assert!(text.trim_end().ends_with("event: end\ndata: {}"), "{text}");
    let mut following = running
        .request(
            "GET",
            &format!("/v1/events?follow=true&after={}", last["seq"]),
        )
        .send()
        .await
        .unwrap();
    running.join_token(&json!({})).await;
    let chunk = following.chunk().await.unwrap().unwrap();
    let text = String::from_utf8(chunk.to_vec()).unwrap();
    assert!(
        text.contains("event: event") && text.contains("token-created"),
        "{text}"
    );
    let end = tokio::spawn(async move { while let Ok(Some(_)) = following.chunk().await {} });
    running.stop().await;
    tokio::time::timeout(common::LONG, end)
        .await
        .unwrap()
        .unwrap();
}
