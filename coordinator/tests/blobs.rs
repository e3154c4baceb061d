//! Uploads with resume, downloads, and the registration of packages.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails"
)]

mod common;

use std::time::Duration;

use common::Running;
use serde_json::{Value, json};

fn digest_of(bytes: &[u8]) -> String {
    format!("blake3:{}", blake3::hash(bytes).to_hex())
}

async fn patch(
    running: &Running,
    digest: &str,
    offset: usize,
    length: usize,
    body: &[u8],
) -> (u16, String, Value) {
    let answer = running
        .request("PATCH", &format!("/v1/blobs/{digest}"))
        .header("upload-offset", offset)
        .header("upload-length", length)
        .body(body.to_vec())
        .send()
        .await
        .unwrap();
    let offset = answer
        .headers()
        .get("upload-offset")
        .map_or("", |value| value.to_str().unwrap())
        .to_owned();
    (
        answer.status().as_u16(),
        offset,
        answer.json().await.unwrap(),
    )
}

async fn head(running: &Running, digest: &str) -> (String, String) {
    let answer = running
        .request("HEAD", &format!("/v1/blobs/{digest}"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let header = |name| answer.headers()[name].to_str().unwrap().to_owned();
    (header("upload-offset"), header("upload-complete"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_where_it_stands_also_after_a_restart() {
    let running = Running::start().await;
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 251) as u8).collect();
    let digest = digest_of(&bytes);
    assert_eq!(head(&running, &digest).await, ("0".into(), "?0".into()));
    let (status, offset, view) = patch(&running, &digest, 0, bytes.len(), &bytes[..400_000]).await;
    assert_eq!((status, offset.as_str()), (200, "400000"), "{view}");
    assert_eq!(view["complete"], false);
    let (status, offset, problem) = patch(&running, &digest, 5, bytes.len(), &bytes[5..]).await;
    assert_eq!((status, offset.as_str()), (409, "400000"), "{problem}");
    let dir = running.dir.clone();
    running.stop().await;

    let running = Running::within(dir, |_| {}).await;
    assert_eq!(
        head(&running, &digest).await,
        ("400000".into(), "?0".into())
    );
    let (status, _, view) = patch(&running, &digest, 400_000, bytes.len(), &bytes[400_000..]).await;
    assert_eq!(status, 200, "{view}");
    assert_eq!(view["complete"], true);
    assert_eq!(
        head(&running, &digest).await,
        ("1000000".into(), "?1".into())
    );
    let answer = running
        .request("GET", &format!("/v1/blobs/{digest}"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.bytes().await.unwrap(), bytes);
    // Once more changes nothing.
    let (status, _, view) = patch(&running, &digest, 0, bytes.len(), &bytes).await;
    assert_eq!((status, &view["complete"]), (200, &json!(true)));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused() {
    let running = Running::with(|config| config.max_blob = berth_model::time::Bytes(1000)).await;
    let digest = digest_of(b"right");
    let (status, _, problem) = patch(&running, &digest, 0, 5, b"wrong").await;
    assert_eq!(status, 422, "{problem}");
    assert_eq!(head(&running, &digest).await, ("0".into(), "?0".into()));
    let (status, _, problem) = patch(&running, &digest, 0, 3, b"right").await;
    assert_eq!(status, 400, "{problem}");
    let (status, _, problem) = patch(&running, &digest, 0, 1001, b"right").await;
    assert_eq!(status, 413, "{problem}");
    let path = format!("/v1/blobs/{digest}");
    let answer = running
        .request("PATCH", &path)
        .body("x")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 400);
    let other = format!("/v1/blobs/{}", digest_of(b"other"));
    let answer = running.request("GET", &other).send().await.unwrap();
    assert_eq!(answer.status(), 404);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn good_packages_become_models_and_bad_ones_are_refused_with_their_errors() {
    let running = Running::start().await;
    let model = running.push("web", "1.2.3").await;
    assert_eq!(
        (&model["version"], &model["serial"]),
        (&json!("1.2.3"), &json!(1))
    );
    let again = running.push("web", "1.2.3").await;
    assert_eq!(again["serial"], 1, "{again}");
    let view = running.get("/v1/models/web").await;
    assert_eq!(view["versions"].as_array().unwrap().len(), 1, "{view}");

    let absent = digest_of(b"never uploaded");
    let (status, problem) = running.post("/v1/models", &json!({"blob": absent})).await;
    assert_eq!(status, 404, "{problem}");

    let rubbish = running.upload(b"this is no archive").await;
    let (status, problem) = running.post("/v1/models", &json!({"blob": rubbish})).await;
    assert_eq!(status, 422, "{problem}");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 1, "{problem}");

    let mut cut = common::package(running.dir.path(), "web", "1.2.4");
    cut.truncate(cut.len() / 2);
    let cut = running.upload(&cut).await;
    let (status, problem) = running.post("/v1/models", &json!({"blob": cut})).await;
    assert_eq!(status, 422, "{problem}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_of_a_broken_upload_is_kept() {
    let running = Running::start().await;
    let bytes = vec![7_u8; 300_000];
    let digest = digest_of(&bytes);
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let body = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let request = running
        .request("PATCH", &format!("/v1/blobs/{digest}"))
        .header("upload-offset", 0)
        .header("upload-length", bytes.len())
        .body(reqwest::Body::wrap_stream(body));
    let sending = tokio::spawn(request.send());
    sender.send(Ok(bytes[..200_000].to_vec())).await.unwrap();
    let taken = &running.edge.figures.uploaded;
    while taken.load(std::sync::atomic::Ordering::Relaxed) < 200_000 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let broken = std::io::Error::other("the cable was pulled");
    sender.send(Err(broken)).await.unwrap();
    sending.await.unwrap().unwrap_err();
    // The coordinator notices a little later.
    let mut offset = 0;
    while offset == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        offset = head(&running, &digest).await.0.parse().unwrap();
    }
    assert_eq!(offset, 200_000);
    let (status, _, view) = patch(&running, &digest, offset, bytes.len(), &bytes[offset..]).await;
    assert_eq!((status, &view["complete"]), (200, &json!(true)), "{view}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_that_nothing_needs_go_after_their_time_and_no_others() {
    let running = Running::start().await;
    let package = common::package(running.dir.path(), "web", "1.2.3");
    let blob = running.upload(&package).await;
    let (status, model) = running.post("/v1/models", &json!({"blob": blob})).await;
    assert_eq!(status, 201, "{model}");
    let forgotten = running.upload(b"never registered").await;
    let unused = |age| running.edge.remove_unused(age);
    assert_eq!(unused(Duration::from_secs(3600)).await, Ok(0));
    assert_eq!(head(&running, &forgotten).await.1, "?1");
    assert_eq!(unused(Duration::ZERO).await, Ok(1));
    assert_eq!(head(&running, &forgotten).await, ("0".into(), "?0".into()));
    assert_eq!(head(&running, &blob).await.1, "?1");
    running.stop().await;
}
