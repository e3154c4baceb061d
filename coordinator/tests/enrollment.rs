//! Joining, renewal, and whose certificates are taken.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails"
)]

mod common;

use std::time::Duration;

use berth_coordinator::pki::Authority;
use berth_proto::COORDINATOR_NAME;
use berth_proto::v1::agents_client::AgentsClient;
use berth_proto::v1::enrollment_client::EnrollmentClient;
use berth_proto::v1::{FetchBlobRequest, RenewRequest};
use common::{Node, Running, code, csr, sign};
use rcgen::KeyPair;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

/// A request whose signature is wrong.
fn broken(key: &KeyPair) -> Vec<u8> {
    let mut request = csr(key);
    let last = request.len() - 1;
    request[last] ^= 1;
    request
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lets_as_many_keys_in_as_it_says() {
    let running = Running::start().await;
    let token = running.join_token(&json!({"uses": 1})).await;
    assert_eq!(token.ca_key_hash, running.authority().key_hash());
    let key = KeyPair::generate().unwrap();
    let reply = running.join(&token, "n1", &key).await.unwrap();
    assert_eq!(reply.name, "n1");
    assert_eq!(reply.ca, running.ca());
    // The same machine again, because its answer was lost, say.
    assert_eq!(running.join(&token, "n1", &key).await.unwrap().name, "n1");
    let other = KeyPair::generate().unwrap();
    running.join(&token, "n2", &other).await.unwrap_err();
    assert_eq!(
        running.get("/v1/nodes").await["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );

    let many = running.join_token(&json!({"uses": 0})).await;
    // A name that another key has.
    running.join(&many, "n1", &other).await.unwrap_err();
    for name in ["n2", "n3", "n4"] {
        let key = KeyPair::generate().unwrap();
        running.join(&many, name, &key).await.unwrap();
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_and_requests_are_refused() {
    let running = Running::start().await;
    let good = running.join_token(&json!({})).await;
    let key = KeyPair::generate().unwrap();
    let mut wrong = good.clone();
    wrong.secret = "x".repeat(wrong.secret.len());
    running.join(&wrong, "n1", &key).await.unwrap_err();
    let mut wrong = good.clone();
    wrong.id = "unknown".to_owned();
    running.join(&wrong, "n1", &key).await.unwrap_err();
    let expired = running.join_token(&json!({"ttl": "1ms"})).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    running.join(&expired, "n1", &key).await.unwrap_err();

    let request = berth_proto::v1::JoinRequest {
        token_id: good.id.clone(),
        token_secret: good.secret.clone(),
        csr: broken(&key).into(),
        name: "n1".to_owned(),
        facts: None,
        ..Default::default()
    };
    let channel = running.channel(None).await.unwrap();
    let answer = EnrollmentClient::new(channel).join(request).await;
    assert_eq!(code(answer), Code::InvalidArgument);
    assert_eq!(running.get("/v1/nodes").await["items"], json!([]));
    // None of that has used it up.
    running.join(&good, "n1", &key).await.unwrap();
    running.stop().await;
}

async fn fetch(running: &Running, identity: Option<(&str, &KeyPair)>) -> Result<(), String> {
    let channel = running.channel(identity).await?;
    let request = FetchBlobRequest {
        blob: format!("blake3:{}", "0".repeat(64)),
        offset: 0,
        ..Default::default()
    };
    match AgentsClient::new(channel).fetch_blob(request).await {
        // Past the door: there is no such blob.
        Err(status) if status.code() == Code::NotFound => Ok(()),
        Err(status) => Err(format!("{status:?}")),
        Ok(_) => Err("there is such a blob".to_owned()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_nodes_certificates_of_this_fleet_within_their_time_are_taken() {
    let running = Running::start().await;
    let Node {
        key, certificate, ..
    } = running.node("n1").await;
    fetch(&running, Some((&certificate, &key))).await.unwrap();

    let none = fetch(&running, None).await.unwrap_err();
    assert!(none.contains("Unauthenticated"), "{none}");

    let authority = running.authority();
    let stranger = KeyPair::generate().unwrap();
    let unknown = sign(&authority, "n1", &stranger, HOUR);
    let refused = fetch(&running, Some((&unknown, &stranger)))
        .await
        .unwrap_err();
    assert!(refused.contains("PermissionDenied"), "{refused}");

    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = Authority::load_or_create(elsewhere.path()).unwrap();
    let foreign = sign(&foreign, "n1", &key, HOUR);
    fetch(&running, Some((&foreign, &key))).await.unwrap_err();

    let for_servers = authority
        .sign_server(&key, &["localhost".to_owned()], HOUR)
        .unwrap()
        .chain_pem;
    let refused = fetch(&running, Some((&for_servers, &key)))
        .await
        .unwrap_err();
    assert!(!refused.contains("PermissionDenied"), "{refused}");

    let expired = sign(&authority, "n1", &key, Duration::ZERO);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    fetch(&running, Some((&expired, &key))).await.unwrap_err();
    for _ in 0..20 {
        let told = told(&running, &expired, &key).await.to_string();
        assert!(told.contains("CertificateExpired"), "{told}");
    }
    running.stop().await;
}

/// What TLS says to a node that has sent a good deal by the time at which its certificate is refused: by that word it
/// renews, so it must not get lost.
async fn told(running: &Running, chain: &str, key: &KeyPair) -> std::io::Error {
    use rustls::pki_types::pem::PemObject;
    let ca = [CertificateDer::from_pem_slice(running.ca().as_bytes()).unwrap()];
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let tls = berth_trust::client(&ca).unwrap();
    let tls = tls.with_client_auth_cert(chain, key).unwrap();
    let tcp = TcpStream::connect(running.address).await.unwrap();
    let name = ServerName::try_from(COORDINATOR_NAME).unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(tls));
    let mut stream = connector.connect(name, tcp).await.unwrap();
    // That these are lost is no wonder.
    let _ = stream.write_all(&[0; 16 * 1024]).await;
    let _ = stream.flush().await;
    stream.read_to_end(&mut Vec::new()).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_certificate_has_expired_may_renew_and_a_stranger_may_not() {
    let running = Running::start().await;
    let node = running.node("n1").await;
    let channel = running.channel(None).await.unwrap();
    let mut enrollment = EnrollmentClient::new(channel);
    let renewed = enrollment
        .renew(RenewRequest {
            csr: csr(&node.key).into(),
        })
        .await
        .unwrap()
        .into_inner();
    assert_ne!(renewed.certificate, node.certificate);
    fetch(&running, Some((&renewed.certificate, &node.key)))
        .await
        .unwrap();
    let stranger = KeyPair::generate().unwrap();
    let answer = enrollment
        .renew(RenewRequest {
            csr: csr(&stranger).into(),
        })
        .await;
    assert_eq!(code(answer), Code::PermissionDenied);
    let broken = broken(&node.key).into();
    let answer = enrollment.renew(RenewRequest { csr: broken }).await;
    assert_eq!(code(answer), Code::InvalidArgument);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_may_not_renew_and_may_join_anew() {
    let running = Running::start().await;
    let node = running.node("n1").await;
    let removed = running
        .request("DELETE", "/v1/nodes/n1")
        .send()
        .await
        .unwrap();
    assert_eq!(removed.status(), 200);
    let channel = running.channel(None).await.unwrap();
    let answer = EnrollmentClient::new(channel)
        .renew(RenewRequest {
            csr: csr(&node.key).into(),
        })
        .await;
    assert_eq!(code(answer), Code::PermissionDenied);
    // Its certificate is still within its time, and is worth nothing.
    let refused = fetch(&running, Some((&node.certificate, &node.key)))
        .await
        .unwrap_err();
    assert!(refused.contains("PermissionDenied"), "{refused}");

    let token = running.join_token(&json!({})).await;
    let reply = running.join(&token, "n1", &node.key).await.unwrap();
    fetch(&running, Some((&reply.certificate, &node.key)))
        .await
        .unwrap();
    running.stop().await;
}
