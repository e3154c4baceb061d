//! HTTPS towards clients.

use std::sync::Arc;

use berth_gateway::{Gateway, GatewayConfig, TlsConfig};
use http::Method;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::common::upstream::Upstream;
use crate::common::{Client, Rig, config, raw, table};

/// A self-signed certificate in files, and what a client trusts.
fn certificate(folder: &std::path::Path) -> (TlsConfig, RootCertStore) {
    let made = rcgen::generate_simple_self_signed(vec!["models.example".to_owned()]).unwrap();
    let files = TlsConfig {
        certificate: folder.join("server.crt"),
        key: folder.join("server.key"),
    };
    std::fs::write(&files.certificate, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    (files, roots)
}

#[tokio::test]
async fn clients_are_served_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (files, roots) = certificate(folder.path());
    let up = Upstream::echo().await;
    let config = GatewayConfig {
        tls: Some(files),
        ..config()
    };
    let rig = Rig::with(config, table(1, &[("dga", &[up.addr])]));
    let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(rig.addr()).await.unwrap();
    let name = ServerName::try_from("models.example").unwrap();
    let connector = TlsConnector::from(Arc::new(client));
    let stream = connector.connect(name, stream).await.unwrap();
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..3 {
        sender.ready().await.unwrap();
        let request = Client::request(Method::POST, "/s/dga/x", "x".repeat(100_000));
        let reply = sender.send_request(request).await.unwrap();
        assert_eq!(reply.status(), 200);
        let text = reply.into_body().collect().await.unwrap().to_bytes();
        assert!(text.starts_with(b"POST /x\n") && text.len() > 100_000);
        assert!(String::from_utf8_lossy(&text).contains("x-forwarded-proto: https\n"));
    }
    // Cleartext is not served on that port.
    let reply = raw(rig.addr(), b"GET /s/dga/x HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert!(!reply.contains("HTTP/1.1"), "{reply}");
}

#[test]
fn a_bad_certificate_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (files, _) = certificate(folder.path());
    std::fs::write(&files.certificate, "nothing").unwrap();
    let named = files.certificate.display().to_string();
    let config = GatewayConfig {
        tls: Some(files),
        ..config()
    };
    let error = Gateway::bind(config).err().expect("refused");
    assert!(error.to_string().contains(&named), "{error}");
}
